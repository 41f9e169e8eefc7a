//! Contracts that refuse without proof, and what they do to those who bid meanwhile.
use crate::broker::doctor;
use chrono::{TimeDelta, Utc};
use gavel_accounts::postgres::Role;
use gavel_tests::{
    Process, System, eventually,
    evolving::{MIGRATING, Operator},
    process::binary,
};
use sqlx::{Connection, Executor, PgConnection};
use std::time::{Duration, Instant};

/// Filled, and nobody has written the old form for a day.
async fn ready(bids: i32) -> System {
    let system = System::with_old_bids(bids).await;
    let (service, _api) = system.service().await;
    let worker = system.worker_with(MIGRATING, &[]).await;
    Operator::at(&system, &service).await.fill("27").await;
    let meters = || async { system.count("SELECT count(*) FROM schema_meters").await };
    eventually("the meter is looked at", meters, |count| *count == 1).await;
    // A process that ends well says so; one that is killed is waited for.
    for mut process in [service, worker] {
        process.terminate();
        assert!(process.ended().await.success(), "{:?}", process.output().last());
    }
    system.a_day_goes_by().await;
    system
}

async fn refusal(system: &System) -> String {
    system.bidctl(&["schema", "contract", "27", "--reason", "a test"]).await.expect_err("refused")
}

#[tokio::test]
async fn a_program_of_the_last_release_is_named_and_waited_for() {
    let system = ready(300).await;
    // What the last release's sessions are called: it writes no process down.
    let mut old = PgConnection::connect(system.database_url(Role::Worker)).await.expect("connected");
    old.execute("SET application_name = 'bid-worker'").await.expect("named");
    let refused = refusal(&system).await;
    assert!(refused.contains("nobody needs the old form: bid-worker on"), "{refused}");
    assert!(refused.contains("an older version"), "{refused}");
    old.close().await.expect("closed");
    system.bidctl(&["--user", "olga", "schema", "contract", "27", "--reason", "it is gone"]).await.expect("contracted");
    let by = "SELECT count(*) FROM operator_actions WHERE action = 'contract_change' AND operator_id LIKE 'olga@%'";
    assert_eq!(system.count(by).await, 1, "the audit says who");

    // Somebody goes back to that release all the same: it starts, and fails at every bid.
    let mut old = PgConnection::connect(system.database_url(Role::Worker)).await.expect("connected");
    old.execute("SET application_name = 'bid-worker'").await.expect("named");
    let (service, _api) = system.service().await;
    let outlived = |findings: Vec<serde_json::Value>| {
        let wrong =
            |found: &serde_json::Value| found["detail"].as_str().is_some_and(|why| why.contains("is gone, by 0027_"));
        findings.into_iter().find(wrong).map(|found| found["what"].as_str().unwrap_or_default().to_owned())
    };
    let found = outlived(doctor(&system, &[], &service).await).expect("the doctor sees it");
    assert!(found.starts_with("bid-worker on ") && found.contains(", session "), "{found}");
    old.close().await.expect("closed");
    assert_eq!(outlived(doctor(&system, &[], &service).await), None, "nobody but that one");

    // Who is called at night has an operator's account, which may not look at bids.
    let operator = system.variables(&[("DATABASE_URL", system.database_url(Role::Operator))]);
    let mut status = Process::start(&binary("bidctl"), &["schema", "status"], &operator);
    assert!(status.ended().await.success(), "{:?}", status.output());
    assert!(status.output().iter().any(|line| line.contains("baked")), "{:?}", status.output());
}

#[tokio::test]
async fn a_write_in_the_old_form_begins_the_waiting_anew() {
    let system = ready(300).await;
    system
        .run(
            "INSERT INTO bids (bid_id, item_id, sequence, bidder_id, amount_minor, decided_at)
         SELECT gen_random_uuid(), item_id, 500, 'late', 7, now() FROM items LIMIT 1",
        )
        .await;
    let refused = refusal(&system).await;
    assert!(refused.contains("bids_amount_minor_writes moves: 0, now 1"), "{refused}");
    assert_eq!(system.count("SELECT max_amount_minor FROM bids WHERE bidder_id = 'late'").await, 7, "by the trigger");
}

#[tokio::test]
async fn without_its_trigger_the_old_form_is_refused_and_a_corrupted_row_is_named() {
    let system = ready(300).await;
    system.run("ALTER TABLE bids DISABLE TRIGGER bids_keep_amounts_equal").await;
    let insert = "INSERT INTO bids (bid_id, item_id, sequence, bidder_id, amount_minor, decided_at)
                  SELECT gen_random_uuid(), item_id, 500, 'late', 7, now() FROM items LIMIT 1";
    let refused = sqlx::query(insert).execute(&system.db).await.expect_err("the constraint holds");
    assert!(refused.to_string().contains("bids_amounts_equal"), "{refused}");
    system.run("ALTER TABLE bids DROP CONSTRAINT bids_amounts_equal").await;
    system.run("UPDATE bids SET max_amount_minor = 1 WHERE bid_id = (SELECT min(bid_id::text)::uuid FROM bids)").await;
    let row: String =
        sqlx::query_scalar("SELECT min(bid_id::text) FROM bids").fetch_one(&system.db).await.expect("read");
    let refused = refusal(&system).await;
    assert!(refused.contains(&format!("1 rows of bids, such as bid_id ({row})")), "{refused}");
    assert!(refused.contains("bids.bids_amounts_equal is not there"), "{refused}");
}

#[tokio::test]
async fn a_session_that_holds_the_table_delays_the_contract_and_no_bid() {
    let system = ready(300).await;
    let (_service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let mut amount = alice.bid(&item.item_id, 1_000).await.expect("accepted").next_minimum_minor;
    let mut holder = system.db.begin().await.expect("begun");
    sqlx::query("SELECT FROM bids LIMIT 1").execute(&mut *holder).await.expect("held");
    // A process goes by the new form ten seconds after it has begun.
    let dry = || async { system.bidctl(&["schema", "contract", "27", "--dry-run"]).await };
    eventually("all is proved", dry, Result::is_ok).await.expect("proved");
    let mut contract = system.start_bidctl(&["schema", "contract", "27", "--reason", "a test"]);
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        amount = alice.bid(&item.item_id, amount).await.expect("bids go on").next_minimum_minor;
        longest = longest.max(asked.elapsed());
    }
    assert!(!contract.has_ended(), "it can't have its lock: {:?}", contract.output());
    // Far below what a bid may take; a lock that is waited for without end would take all of its five seconds.
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    holder.rollback().await.expect("let go");
    assert!(contract.ended().await.success(), "{:?}", contract.output());
    alice.bid(&item.item_id, amount).await.expect("and on");
}

#[tokio::test]
async fn a_program_whose_form_is_gone_does_not_start() {
    let system = ready(100).await;
    system.bidctl(&["schema", "contract", "27", "--reason", "a test"]).await.expect("contracted");
    // As of a change that is newer than any that this program knows.
    system
        .run(
            "INSERT INTO schema_steps (change, name, step, checksum, taken_by, reason, evidence)
         VALUES (9999, '9999_from_the_future', 'contract', '', 'somebody', 'a test', '{}')",
        )
        .await;
    let mut worker = system.start_worker(&[], &[]);
    assert!(!worker.ended().await.success());
    let output = worker.output().join("\n");
    assert!(output.contains("is gone, by 9999_from_the_future: start a newer version"), "{output}");
}

/// However close together they begin: either the contract has seen it, or it has seen the contract.
#[tokio::test]
async fn of_a_contract_and_an_older_program_that_begin_at_once_exactly_one_goes_on() {
    let system = ready(100).await;
    let after = |ms: i64| tokio::time::sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    for apart_ms in [-300_i64, -150, -75, -25, 25, 75, 150, 300] {
        let contract = async {
            after(-apart_ms).await;
            system.bidctl(&["schema", "contract", "27", "--reason", "a test"]).await
        };
        let start = async {
            after(apart_ms).await;
            begun(Process::start(&binary("elder-worker"), &[], &system.variables(&[]))).await
        };
        let (contracted, elder) = tokio::join!(contract, start);
        assert_ne!(contracted.is_ok(), elder.is_some(), "{apart_ms} ms apart: {contracted:?}");
        match (contracted, elder) {
            (Err(refused), Some(mut elder)) => {
                // Written down by now, or as a session that nobody has written down yet.
                assert!(refused.contains("nobody needs the old form: bid-worker on"), "{refused}");
                elder.terminate();
                assert!(elder.ended().await.success(), "{:?}", elder.output().last());
            }
            _ => {
                system.bidctl(&["schema", "revert", "27", "--reason", "a test"]).await.expect("reverted");
            }
        }
    }
}

#[tokio::test]
async fn an_older_program_that_lives_prevents_a_contract_and_one_that_comes_after_it_does_not_start() {
    let system = ready(100).await;
    let start = || begun(Process::start(&binary("elder-worker"), &[], &system.variables(&[])));
    let mut elder = start().await.expect("nothing is gone yet");
    let refused = refusal(&system).await;
    assert!(refused.contains("which knows up to 26"), "{refused}");
    elder.terminate();
    assert!(elder.ended().await.success(), "{:?}", elder.output().last());
    system.bidctl(&["schema", "contract", "27", "--reason", "it is gone"]).await.expect("contracted");
    assert!(start().await.is_none(), "what it needs is gone");
}

/// Once it has begun, or refused since what it needs is gone.
async fn begun(mut elder: Process) -> Option<Process> {
    let has_begun = || elder.log().iter().any(|line| line["msg"] == "ready");
    let refuses = || elder.output().iter().any(|line| line.contains("is gone, by 0027_widen_bid_amounts"));
    eventually("it has begun or refuses", || async { has_begun() || refuses() }, |decided| *decided).await;
    if has_begun() {
        return Some(elder);
    }
    assert!(!elder.ended().await.success());
    None
}

#[tokio::test]
async fn the_files_of_all_changes_are_as_they_should_be() {
    let system = System::new().await;
    let said = system.bidctl(&["schema", "lint"]).await.expect("no findings");
    assert!(said.contains("(none)"), "{said}");
}

#[tokio::test]
async fn what_is_misspelled_or_early_is_told_what_there_is() {
    let system = System::with_old_bids(100).await;
    for (arguments, told) in [
        (&["schema", "contract", "26", "--reason", "x"][..], "there is no change 26 with a contract; there are: 0027_"),
        (&["schema", "contract", "bids", "--reason", "x"], "allowed: a change's number, such as 27"),
        (&["schema", "contract", "27"], "--reason <REASON>"),
        (&["schema", "revert", "27", "--reason", "x"], "its phase: it is expanded"),
        (&["schema", "drop", "27", "--reason", "x"], "its phase: it is expanded"),
    ] {
        let refused = system.bidctl(arguments).await.expect_err("refused");
        assert!(refused.contains(told), "{arguments:?}: {refused}");
    }
    let is_over = System::new().await;
    for step in ["contract", "revert", "drop"] {
        let shown = is_over.bidctl(&["schema", step, "27", "--dry-run"]).await;
        let told = shown.unwrap_or_else(|refused| refused);
        assert!(told.contains("it is dropped"), "{step}: {told}");
    }
    let shown = system.bidctl(&["schema", "status"]).await.expect("shown");
    assert!(shown.contains("0027_widen_bid_amounts") && shown.contains("somebody to start it"), "{shown}");
    assert!(!shown.contains("0024"), "what is over is left out: {shown}");
}
