//! Backfills on a bad day: workers killed, rows held, operators at odds, statements that can't work.
use crate::broker::doctor;
use gavel_tests::{
    Process, System, eventually,
    evolving::{MIGRATING, MISCOUNTED, Operator},
};
use serde_json::Value;

/// What a worker runs that fills and nothing else.
const FILLING: &[&str] = &["--only", "run_backfill_chunk,run_online_step"];

async fn start(operator: &Operator<'_>, change: &str, more: &[&str]) -> Result<Value, String> {
    operator.backfill(&[&["start", change, "--reason", "a test"], more].concat()).await
}

#[tokio::test]
async fn a_worker_killed_at_any_line_of_a_chunk_changes_nothing_twice() {
    let system = System::with_old_bids(5_000).await;
    let (service, _api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    start(&operator, "28", &["--target-ms", "10", "--most-rows", "100"]).await.expect("started");
    for line in ["after_claim@2", "after_statement@1", "after_statement@3", "before_commit@2", "after_commit@2"] {
        let (stage, hit) = line.split_once('@').expect("a stage and a number");
        let fault = format!("run_backfill_chunk.{stage}=abort@{hit}");
        let mut doomed = system.start_worker(FILLING, &[("GAVEL_FAILPOINTS", &fault), ("GAVEL_LEASE_MS", "1500")]);
        assert!(!doomed.ended().await.success(), "it was meant to die at {line}");
    }
    let passed = operator.state("28").await["rows_passed"].as_i64().expect("a number");
    assert!(passed > 0, "each got as far as its last commit");
    let _worker = system.worker_with(FILLING, &[("GAVEL_LEASE_MS", "1500")]).await;
    operator.done("28").await;
    assert_eq!(system.count(MISCOUNTED).await, 0);
    let pairs = system.count("SELECT count(*) FROM user_items").await;
    assert_eq!(operator.state("28").await["rows_changed"], pairs, "each row once");
    system.bidctl(&["schema", "status"]).await.expect("shown");
    let again = start(&operator, "28", &[]).await.expect_err("it is done");
    assert!(again.contains("is done already, started by olga"), "{again}");
}

#[tokio::test]
async fn a_worker_killed_in_an_online_step_leaves_it_to_the_next() {
    let system = System::with_old_bids(200).await;
    let (service, _api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    start(&operator, "27", &[]).await.expect("started");
    let fault = ("GAVEL_FAILPOINTS", "run_online_step.before_statement=abort@2");
    let mut doomed = system.start_worker(FILLING, &[fault, ("GAVEL_LEASE_MS", "1500")]);
    assert!(!doomed.ended().await.success(), "it was meant to die in its second step");
    assert_eq!(operator.state("27").await["stage"], "BACKFILL_STAGE_ONLINE");
    let _worker = system.worker_with(FILLING, &[("GAVEL_LEASE_MS", "1500")]).await;
    operator.done("27").await;
    let valid = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'bids'::regclass AND NOT convalidated";
    assert_eq!(system.count(valid).await, 0);
}

#[tokio::test]
async fn only_a_worker_that_is_started_for_it_fills() {
    let system = System::with_old_bids(200).await;
    let (service, _api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    let usual = system.worker().await;
    let log = || async { usual.log() };
    eventually("it runs", log, |log| log.iter().any(|line| line["handler"] == "relay_outbox")).await;
    assert!(!usual.log().iter().any(|line| line["handler"] == "run_backfill_chunk"), "not among those it has started");
    start(&operator, "27", &[]).await.expect("started");
    let _other = system.worker_with(FILLING, &[]).await;
    operator.done("27").await;
    assert!(!usual.log().iter().any(|line| line["handler"] == "run_backfill_chunk"));
}

#[tokio::test]
async fn of_two_operators_who_start_it_at_once_one_is_told_of_the_other() {
    let system = System::with_old_bids(200).await;
    let (service, _api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    let (one, other) = tokio::join!(start(&operator, "27", &[]), start(&operator, "27", &[]));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    let refused = one.and(other).expect_err("one was refused");
    assert!(refused.contains("0027_widen_bid_amounts is running already, started by olga"), "{refused}");
    assert_eq!(system.count("SELECT count(*) FROM mq_msgs WHERE channel_name = 'run_backfill_chunk'").await, 1);
}

/// What `bidctl doctor` says of the change 27.
async fn of_backfill(system: &System, service: &Process) -> Value {
    let findings = doctor(system, &[], service).await;
    let is_it = |found: &Value| found["what"] == "backfill 0027_widen_bid_amounts";
    findings.into_iter().find(is_it).expect("it is under way")
}

#[tokio::test]
async fn it_is_paused_retuned_resumed_cancelled_and_begun_anew() {
    let system = System::with_old_bids(3_000).await;
    let (service, _api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    start(&operator, "27", &["--target-ms", "10", "--most-rows", "100", "--rest-ratio", "100"]).await.expect("started");
    let _worker = system.worker_with(FILLING, &[]).await;
    let state = || async { operator.state("27").await };
    eventually("it has begun", state, |found| found["rows_passed"].as_i64() > Some(0)).await;
    operator.backfill(&["pause", "27", "--reason", "lunch"]).await.expect("paused");
    let paused = state().await;
    assert_eq!((&paused["state"], &paused["why"]), (&"BACKFILL_STATE_PAUSED".into(), &"lunch".into()));
    let jobs =
        || async { system.count("SELECT count(*) FROM mq_msgs WHERE channel_name = 'run_backfill_chunk'").await };
    eventually("its job is over", jobs, |count| *count == 0).await;
    assert_eq!(state().await["rows_passed"], paused["rows_passed"], "nothing was filled while it was paused");
    let told = of_backfill(&system, &service).await;
    assert_eq!((&told["by_operator"], &told["detail"]), (&true.into(), &"paused by olga: lunch".into()));
    for (wrong, told) in [(["--target-ms", "9"], "target_ms is out of range; allowed: 10 to 5000")] {
        let refused = operator.backfill(&[&["retune", "27", "--reason", "x"][..], &wrong].concat()).await;
        assert!(refused.expect_err("out of range").contains(told));
    }
    operator.backfill(&["resume", "27", "--reason", "after it"]).await.expect("resumed");
    operator.backfill(&["retune", "27", "--reason", "faster", "--rest-ratio", "50"]).await.expect("retuned");
    operator.backfill(&["cancel", "27", "--reason", "enough"]).await.expect("cancelled");
    let filled = system.count("SELECT count(*) FROM bids WHERE max_amount_minor IS NOT NULL").await;
    assert!(filled > 0, "what was filled stays");
    start(&operator, "27", &[]).await.expect("begun anew");
    let tuned = "SELECT count(*) FROM backfills WHERE target_ms = 10 OR most_rows = 100 OR rest_ratio = 50";
    assert_eq!(system.count(tuned).await, 0, "how the one before was tuned is not how this one is");
    operator.done("27").await;
    assert_eq!(system.count("SELECT count(*) FROM bids WHERE max_amount_minor IS NULL").await, 0);
    let told = "SELECT string_agg(to_state || ' ' || reason, ', ' ORDER BY transition_id) FROM backfill_transitions";
    let told: String = sqlx::query_scalar(told).fetch_one(&system.db).await.expect("read");
    assert_eq!(
        told,
        "running a test, paused lunch, running after it, running faster, cancelled enough, running a test, \
         done every row is filled"
    );
    let actions = "SELECT count(*) FROM operator_actions WHERE operator_id = 'olga'";
    assert_eq!(system.count(actions).await, 6);
    let erased = sqlx::query("DELETE FROM operator_actions").execute(&system.db).await.expect_err("append-only");
    assert!(erased.to_string().contains("append-only"), "{erased}");
}

#[tokio::test]
async fn rows_that_somebody_holds_are_waited_for_and_bids_go_on() {
    let system = System::with_old_bids(500).await;
    let (service, api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    let mut holder = system.db.begin().await.expect("begun");
    sqlx::query("SELECT FROM bids FOR UPDATE").execute(&mut *holder).await.expect("held");
    start(&operator, "27", &[]).await.expect("started");
    let _worker = system.worker_with(FILLING, &[]).await;
    let state = || async { operator.state("27").await };
    let waits = |found: &Value| found["throttled_by"].as_str().is_some_and(|why| why.contains("somebody holds"));
    let held = eventually("it says what it waits for", state, waits).await;
    assert!(held["halvings"].as_i64() > Some(0), "{held}");
    let item = api.with_token(system.token("sam", "seller"));
    let item = item.create("A lamp", chrono::Utc::now() + chrono::TimeDelta::hours(1)).await.item_id;
    api.with_token(system.token("alice", "bidder")).bid(&item, 1_000).await.expect("bids go on");
    holder.rollback().await.expect("let go");
    operator.done("27").await;
}

#[tokio::test]
async fn a_statement_that_can_not_work_pauses_it_with_everything_as_it_was() {
    let system = System::with_old_bids(500).await;
    let (service, _api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    // As a full disk would, on the server's side, for a part of the rows.
    for statement in [
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$",
        "CREATE TRIGGER full_disk BEFORE UPDATE ON bids FOR EACH ROW WHEN (NEW.sequence = 40) EXECUTE FUNCTION full_disk()",
    ] {
        system.run(statement).await;
    }
    start(&operator, "27", &["--most-rows", "100"]).await.expect("started");
    let _worker = system.worker_with(FILLING, &[]).await;
    let state = || async { operator.state("27").await };
    let paused = eventually("it is paused", state, |found| found["state"] == "BACKFILL_STATE_PAUSED").await;
    assert!(paused["why"].as_str().is_some_and(|why| why.contains("No space left on device")), "{paused}");
    let filled = system.count("SELECT count(*) FROM bids WHERE max_amount_minor IS NOT NULL").await;
    assert_eq!(paused["rows_changed"], filled, "no chunk is half done");
    let told = of_backfill(&system, &service).await;
    assert!(told["ok"] == false && told["detail"].as_str().is_some_and(|why| why.starts_with("has paused itself: ")));
    system.run("DROP TRIGGER full_disk ON bids").await;
    operator.backfill(&["resume", "27", "--reason", "there is room again"]).await.expect("resumed");
    operator.done("27").await;
}

#[tokio::test]
async fn an_ended_watch_leaves_it_running_and_says_so() {
    let system = System::with_old_bids(3_000).await;
    let (service, _api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    start(&operator, "27", &["--most-rows", "100", "--rest-ratio", "50"]).await.expect("started");
    let mut watch = operator.watch("27");
    let output = || async { watch.output() };
    eventually("it shows how far it is", output, |lines| lines.iter().any(|line| line.contains("rows/s"))).await;
    let mut interrupt = std::process::Command::new("kill");
    assert!(interrupt.args(["-INT", &watch.id().to_string()]).status().expect("kill").success());
    assert!(watch.ended().await.success());
    assert!(watch.output().iter().any(|line| line.contains("the backfill goes on")), "{:?}", watch.output());
    assert_eq!(operator.state("27").await["state"], "BACKFILL_STATE_RUNNING");
    let _worker: Process = system.worker_with(MIGRATING, &[]).await;
    operator
        .backfill(&["retune", "27", "--reason", "go", "--rest-ratio", "0", "--most-rows", "20000"])
        .await
        .expect("go");
    operator.done("27").await;
}
