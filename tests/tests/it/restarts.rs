//! PostgreSQL crashes and restarts under load. This test runs alone: it takes the server from all others.
use gavel_tests::{Process, System, eventually, evolving::Operator, process::binary};
use sqlx::PgPool;
use sqlxmq::JobBuilder;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

/// Kills the backend that runs it: the server then ends all others and recovers from its log.
const CRASH: &str = "COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'";

/// Enqueues until told to stop; gives the names of those jobs whose enqueueing was confirmed.
async fn enqueue_all(db: &PgPool, stop: &AtomicBool, confirmed: &AtomicUsize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (kind, name) = (if n % 2 == 0 { "misbehave" } else { "carry" }, format!("job {n}"));
        let mut job = JobBuilder::new(kind);
        job.set_channel_name(kind).set_retries(20).set_json(&serde_json::json!({ "how": name })).expect("JSON");
        if job.spawn(db).await.is_ok() {
            names.insert(name);
            confirmed.store(names.len(), Ordering::Relaxed);
        } else {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    names
}

#[tokio::test]
async fn workers_recover_unaided_and_each_job_counts_once() {
    let system = System::new().await;
    for statement in ["CREATE TABLE notes (text text NOT NULL)", "CREATE TABLE ticks (tick_at timestamptz NOT NULL)"] {
        sqlx::query(statement).execute(&system.db).await.expect("prepared");
    }
    // The servers of tests are quick and forgetful; what is confirmed here must be on disk, as it is in production.
    let durable = format!("ALTER DATABASE {} SET synchronous_commit = on", system.name());
    sqlx::query(&durable).execute(&system.db).await.expect("set");
    let program = &binary("probe-worker");
    let variables = system.variables(&[("GAVEL_LEASE_MS", "1500")]);
    let url = variables.iter().find(|(name, _)| name == "DATABASE_URL").map(|(_, url)| url.as_str());
    let db = PgPool::connect(url.expect("the harness sets it")).await.expect("connected");
    let _workers = [Process::start(program, &[], &variables), Process::start(program, &[], &variables)];
    let (stop, confirmed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let crashes = async {
        for crash in 1..=3 {
            let goal = confirmed.load(Ordering::Relaxed) + 100;
            eventually("jobs are enqueued", || async { confirmed.load(Ordering::Relaxed) }, |n| *n >= goal).await;
            let error = sqlx::query(CRASH).execute(&system.db).await;
            assert!(error.is_err(), "crash {crash}: the server was meant to go");
        }
        let goal = confirmed.load(Ordering::Relaxed) + 100;
        eventually("jobs are enqueued again", || async { confirmed.load(Ordering::Relaxed) }, |n| *n >= goal).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (names, ()) = tokio::join!(enqueue_all(&db, &stop, &confirmed), crashes);
    let queued = || async {
        let count = "SELECT count(*) FROM mq_msgs WHERE id <> uuid_nil()";
        sqlx::query_scalar::<_, i64>(count).fetch_one(&system.db).await.ok()
    };
    eventually("every job is done", queued, |n| *n == Some(0)).await;
    let notes: Vec<String> = sqlx::query_scalar("SELECT text FROM notes").fetch_all(&system.db).await.expect("read");
    let distinct: BTreeSet<String> = notes.iter().cloned().collect();
    assert_eq!(notes.len(), distinct.len(), "none twice");
    let lost: Vec<_> = names.difference(&distinct).collect();
    assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
}

#[tokio::test]
async fn a_backfill_goes_on_by_itself_after_the_server_crashed_in_the_middle_of_it() {
    let system = System::with_old_bids(5_000).await;
    let durable = format!("ALTER DATABASE {} SET synchronous_commit = on", system.name());
    sqlx::query(&durable).execute(&system.db).await.expect("set");
    let (service, _api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    let slowly = ["start", "28", "--reason", "a test", "--most-rows", "100", "--rest-ratio", "20"];
    operator.backfill(&slowly).await.expect("started");
    let _worker = system.worker_with(&["--only", "run_backfill_chunk,run_online_step"], &[]).await;
    let passed = || async {
        let rows = sqlx::query_scalar("SELECT rows_passed FROM backfills WHERE change = 28");
        rows.fetch_one(&system.db).await.unwrap_or(0_i64)
    };
    for _ in 0..2 {
        let goal = passed().await + 300;
        eventually("it gets further", passed, |rows| *rows >= goal).await;
        assert!(sqlx::query(CRASH).execute(&system.db).await.is_err(), "the server was meant to go");
    }
    let done = || async {
        let state = sqlx::query_scalar("SELECT state FROM backfills WHERE change = 28");
        state.fetch_one(&system.db).await.unwrap_or_else(|_| String::new())
    };
    eventually("it comes to its end", done, |state| state == "done").await;
    let pairs = system.count("SELECT count(*) FROM user_items").await;
    assert_eq!(system.count("SELECT rows_changed FROM backfills WHERE change = 28").await, pairs, "each row once");
    assert_eq!(system.count("SELECT sum(items_bid_on)::bigint FROM user_stats").await, pairs);
}
