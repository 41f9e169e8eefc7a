//! PostgreSQL, RabbitMQ and Redis behind TLS, with certificates that an authority of one's own has signed.
use chrono::{TimeDelta, Utc};
use gavel_proto::v1::ReadSource;
use gavel_tests::{
    Process, System, encrypted::Encrypted, eventually, private::Postgres, process::binary, servers::host_of,
};
use std::fs;

#[tokio::test]
async fn a_bid_travels_over_tls_and_a_certificate_that_nobody_vouches_for_is_not_believed() {
    let system = System::new().await;
    let of = |variables: &[(String, String)], name: &str| {
        let found = variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).expect("every system has it")
    };
    let (for_worker, for_service) = (system.variables(&[]), system.service_variables(&[]));
    let broker = Encrypted::before(host_of(&of(&for_worker, "AMQP_URL"))).await;
    let cache = Encrypted::before(host_of(&of(&for_worker, "REDIS_URL"))).await;
    let authorities = std::env::temp_dir().join(format!("{}.pem", system.name()));
    let both = [&broker, &cache].map(|server| fs::read_to_string(&server.certificate).expect("a certificate")).concat();
    fs::write(&authorities, both).expect("written");
    let over_tls = |variables: &[(String, String)]| {
        let url = |name: &str, scheme: &str, server: &Encrypted| {
            let url = of(variables, name);
            let encrypted = url.replace(&host_of(&url), &server.host);
            format!("{scheme}://{}", encrypted.split_once("://").expect("a scheme").1)
        };
        [url("AMQP_URL", "amqps", &broker), url("REDIS_URL", "rediss", &cache)]
    };
    let ([amqp, redis], trusted) = (over_tls(&for_worker), authorities.to_str().expect("a path"));
    let worker = [("AMQP_URL", &*amqp), ("REDIS_URL", &redis), ("GAVEL_BACKEND_CACERT", trusted)];
    let [amqp, redis] = over_tls(&for_service);
    let service = [("AMQP_URL", &*amqp), ("REDIS_URL", &redis), ("GAVEL_BACKEND_CACERT", trusted)];
    let _worker = system.worker_with(&[], &worker).await;
    let (_service, api) = system.service_with(&service).await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item.item_id, 1_000).await.expect("accepted");
    let counted = || async { alice.stats("").await.expect("shown").stats.first().map(|stats| stats.bids_placed) };
    eventually("the bid is counted, over RabbitMQ", counted, |bids| *bids == Some(1)).await;
    let shown = || async { api.item(&item.item_id).await.expect("shown").source() };
    eventually("it is read from Redis", shown, |source| *source == ReadSource::ReadModel).await;

    let mut stranger = Process::start(&binary("bidctl"), &["doctor"], &system.variables(&worker[..2]));
    assert!(!stranger.ended().await.success());
    let said = stranger.output().join("\n");
    assert!(said.contains("RabbitMQ can't be reached") && said.contains("the cache does not answer"), "{said}");
    fs::remove_file(&authorities).expect("removed");
}

#[tokio::test]
async fn postgresql_shows_another_certificate_while_bids_go_on_and_a_strange_one_is_not_believed() {
    let (system, postgres) = (System::new().await, Postgres::primary().await);
    let trusted = std::env::temp_dir().join(format!("{}-postgres.pem", system.name()));
    fs::write(&trusted, postgres.show_new_certificate().await).expect("written");
    let url = format!(
        "postgres://gavel@localhost:{}/gavel?sslmode=verify-full&sslrootcert={}",
        postgres.port,
        trusted.display()
    );
    let (_service, api) = system.service_with(&[("DATABASE_URL", &url)]).await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item.item_id, 1_000).await.expect("accepted");
    let db = postgres.pool().await;
    let plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE application_name LIKE 'gavel%' AND NOT ssl";
    assert_eq!(
        sqlx::query_scalar::<_, i64>(plain).fetch_one(&db).await.expect("looked"),
        0,
        "nothing is said in the clear"
    );

    // Another certificate; who is connected notices nothing, and who comes new must know its authority.
    let next = postgres.show_new_certificate().await;
    alice.bid(&item.item_id, 2_000).await.expect("accepted over a connection of before");
    let doctor = || Process::start(&binary("bidctl"), &["doctor"], &system.variables(&[("DATABASE_URL", &url)]));
    let mut stranger = doctor();
    assert!(!stranger.ended().await.success());
    let said = stranger.output().join("\n");
    assert!(said.contains("the database does not answer"), "{said}");
    let both = fs::read_to_string(&trusted).expect("there") + &next;
    fs::write(&trusted, both).expect("written");
    // Connections are closed by and by; here, all at once. New ones believe the new certificate.
    let closed = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                  WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    sqlx::query(closed).execute(&db).await.expect("closed");
    let again = || async { alice.bid(&item.item_id, 3_000).await.is_ok() };
    eventually("bids are taken over new connections", again, |taken| *taken).await;
    fs::remove_file(&trusted).expect("removed");
}
