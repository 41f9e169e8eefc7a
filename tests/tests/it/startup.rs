//! What is wrong at the start is said at the start, all of it.
use gavel_accounts::postgres::Role;
use gavel_tests::{Process, System, eventually, process::binary};

#[tokio::test]
async fn a_missing_configuration_is_listed_whole() {
    for (name, also) in [("bid-service", "GAVEL_LISTEN"), ("bid-service", "GAVEL_JWT_PUBLIC_KEY"), ("bid-worker", "")] {
        let variables = ["GAVEL_LISTEN", "GAVEL_OPS_LISTEN"].map(|name| (name.to_owned(), "nowhere".to_owned()));
        let mut process = Process::start(&binary(name), &[], &variables);
        assert!(!process.ended().await.success());
        let output = process.output().join("\n");
        for missing in ["DATABASE_URL", "AMQP_URL", "REDIS_URL", "GAVEL_OPS_LISTEN", also] {
            assert!(output.contains(missing), "{name} does not name {missing}: {output}");
        }
    }
}

#[tokio::test]
async fn a_variable_that_nobody_reads_is_named_and_one_of_the_other_program_is_not() {
    let system = System::new().await;
    let given = [("GAVEL_LEASE", "3000"), ("GAVEL_BODY_BYTES", "1048576"), ("GAVEL_URL", "http://127.0.0.1:1")];
    let worker = system.worker_with(&[], &given).await;
    let told: Vec<_> = worker.log().into_iter().filter(|line| line["msg"].to_string().contains("misspelt")).collect();
    assert_eq!(told.iter().map(|line| &line["variable"]).collect::<Vec<_>>(), ["GAVEL_LEASE"], "{told:?}");
}

#[tokio::test]
async fn a_process_refuses_a_schema_older_than_it_needs_and_names_what_is_missing() {
    let system = System::new().await;
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 6").execute(&system.db).await.expect("forgotten");
    for name in ["bid-service", "bid-worker"] {
        let mut process = Process::start(&binary(name), &[], &system.variables(&[]));
        assert!(!process.ended().await.success());
        let output = process.output().join("\n");
        assert!(
            output.contains("0006_create_dead_jobs is missing") && output.contains("Apply the migrations"),
            "{output}"
        );
    }
}

#[tokio::test]
async fn a_schema_lost_while_running_turns_readiness_off_and_says_which() {
    let system = System::new().await;
    let (service, _) = system.service().await;
    sqlx::query("UPDATE _sqlx_migrations SET checksum = 'x' WHERE version = 4")
        .execute(&system.db)
        .await
        .expect("done");
    let url = format!("http://{}/readyz", service.address().await);
    let look = || async {
        let reply = reqwest::get(&url).await.expect("answered");
        (reply.status().as_u16(), reply.text().await.expect("text"))
    };
    let (_, told) = eventually("it is noticed", look, |(status, _)| *status == 503).await;
    assert!(told.contains("0004_create_user_stats was applied in another form"), "{told}");
}

#[tokio::test]
async fn migrating_again_changes_nothing_and_many_at_once_take_turns() {
    let system = System::new().await;
    for statement in ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION pg_database_owner"] {
        sqlx::query(statement).execute(&system.db).await.expect("emptied");
    }
    let owner = system.variables(&[("DATABASE_URL", system.database_url(Role::Migrator))]);
    let migrate = || Process::start(&binary("bidctl"), &["migrate", "--json"], &owner);
    let mut applied = 0;
    for mut process in [migrate(), migrate(), migrate()] {
        assert!(process.ended().await.success(), "{:?}", process.output());
        let said: serde_json::Value = serde_json::from_str(&process.output().join("\n")).expect("JSON");
        applied += said["applied"].as_array().expect("a list").len();
    }
    let known: i64 =
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(&system.db).await.expect("counted");
    assert_eq!(usize::try_from(known).ok(), Some(gavel::EXPAND.iter().count()));
    assert_eq!(Some(applied), usize::try_from(known).ok(), "each was applied by one of the three");
}

#[tokio::test]
async fn an_unknown_handler_is_named_with_those_that_exist() {
    let system = System::new().await;
    let mut worker = system.start_worker(&["--only", "mow_lawn"], &[]);
    assert!(!worker.ended().await.success());
    let output = worker.output().join("\n");
    assert!(output.contains("\"mow_lawn\"") && output.contains("relay_outbox"), "{output}");
}

#[tokio::test]
async fn one_that_can_not_listen_is_not_counted_among_those_who_live() {
    let system = System::new().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let variables = system.service_variables(&[("GAVEL_LISTEN", &address)]);
    let mut process = Process::start(&binary("bid-service"), &[], &variables);
    assert!(!process.ended().await.success());
    assert!(process.output().join("\n").contains(&address), "{:?}", process.output());
    assert_eq!(system.count("SELECT count(*) FROM processes").await, 1, "it was written down");
    assert_eq!(system.count("SELECT count(*) FROM processes WHERE left_at IS NULL").await, 0, "and has left");
}

#[tokio::test]
async fn pools_that_are_larger_than_the_server_allows_are_refused_by_name() {
    let system = System::new().await;
    for (name, pool) in [("bid-service", "GAVEL_POOL_SIZE"), ("bid-worker", "GAVEL_JOB_POOL_SIZE")] {
        let mut process = Process::start(&binary(name), &[], &system.variables(&[(pool, "500")]));
        assert!(!process.ended().await.success());
        let output = process.output().join("\n");
        assert!(output.contains(&format!("{pool} 500")) && output.contains("the server allows"), "{output}");
    }
}
