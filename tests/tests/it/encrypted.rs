//! RabbitMQ and Redis behind TLS, with certificates that an authority of one's own has signed.
use chrono::{TimeDelta, Utc};
use gavel_proto::v1::ReadSource;
use gavel_tests::{Process, System, encrypted::Encrypted, eventually, process::binary, servers::host_of};
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
