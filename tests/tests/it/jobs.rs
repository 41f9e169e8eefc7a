//! Jobs under everything that goes wrong: workers that freeze, die, or lose their database, and handlers that say what
//! should become of their job.
use gavel_runtime::{
    Conn,
    job::ops::{self, Cancelled, Selection},
};
use gavel_tests::{Process, System, eventually, process::binary};
use sqlx::{Executor, types::Uuid};
use sqlxmq::JobBuilder;
use std::process::Command;

const LEASE_MS: &str = "1500";

async fn prepared() -> System {
    let system = System::new().await;
    for statement in [
        "CREATE TABLE notes (n bigint GENERATED ALWAYS AS IDENTITY, text text NOT NULL, at timestamptz DEFAULT clock_timestamp())",
        "CREATE TABLE ticks (tick_at timestamptz NOT NULL)",
        "CREATE SEQUENCE tries",
    ] {
        sqlx::query(statement).execute(&system.db).await.expect("prepared");
    }
    system
}

fn worker(system: &System) -> Process {
    let program = &binary("probe-worker");
    Process::start(program, &[], &system.variables(&[("GAVEL_LEASE_MS", LEASE_MS)]))
}

/// Enqueues as any program with the crate sqlxmq would.
async fn enqueue(system: &System, kind: &str, how: &str) -> Uuid {
    let mut job = JobBuilder::new(kind);
    job.set_channel_name(kind).set_retries(2).set_json(&serde_json::json!({ "how": how })).expect("JSON");
    job.spawn(&system.db).await.expect("enqueued")
}

async fn notes(system: &System) -> Vec<String> {
    sqlx::query_scalar("SELECT text FROM notes ORDER BY n").fetch_all(&system.db).await.expect("read")
}

async fn queued(system: &System) -> i64 {
    let count = "SELECT count(*) FROM mq_msgs WHERE id <> uuid_nil() AND attempt_at < now() + interval '1 minute'";
    sqlx::query_scalar(count).fetch_one(&system.db).await.expect("counted")
}

async fn leased(system: &System) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM mq_msgs WHERE lease_token IS NOT NULL")
        .fetch_one(&system.db)
        .await
        .expect("counted")
}

async fn last_error(system: &System, id: Uuid) -> Option<String> {
    sqlx::query_scalar("SELECT last_error FROM dead_jobs WHERE job_id = $1")
        .bind(id)
        .fetch_optional(&system.db)
        .await
        .expect("looked")
}

/// Asks for a cancellation, as an operator's call does.
async fn cancel(system: &System, job_id: Uuid) -> Cancelled {
    let mut conn = Conn::from(system.db.acquire().await.expect("connected"));
    conn.execute("BEGIN").await.expect("begun");
    let cancelled = ops::cancel(&mut conn, job_id, "olga").await.expect("asked");
    conn.execute("COMMIT").await.expect("committed");
    cancelled
}

fn signal(signal: &str, process: &Process) {
    let sent = Command::new("kill").args([signal, &process.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

#[tokio::test]
async fn what_a_worker_frozen_past_its_lease_did_does_not_commit() {
    let system = prepared().await;
    let frozen = worker(&system);
    enqueue(&system, "carry", "take a while").await;
    eventually("the job is leased", || leased(&system), |n| *n == 1).await;
    signal("-STOP", &frozen);
    let _other = worker(&system);
    eventually("the other worker does it", || queued(&system), |n| *n == 0).await;
    signal("-CONT", &frozen);
    let lost = || async { frozen.output().iter().any(|line| line.contains("lease was lost")) };
    eventually("the frozen worker learns that it lost the lease", lost, |lost| *lost).await;
    assert_eq!(notes(&system).await, ["take a while"], "its effect did not commit");
}

#[tokio::test]
async fn a_worker_that_slept_through_its_lease_has_no_say_in_a_job_that_another_has() {
    let system = prepared().await;
    let lease = || async {
        let lease = "SELECT lease_token FROM mq_msgs WHERE lease_token IS NOT NULL";
        sqlx::query_scalar::<_, Uuid>(lease).fetch_optional(&system.db).await.expect("looked")
    };
    let sleeper = worker(&system);
    enqueue(&system, "carry", "take longer").await;
    let first = eventually("the job is leased", lease, Option::is_some).await;
    signal("-STOP", &sleeper);
    let other = worker(&system);
    eventually("the other has it", lease, |now| now.is_some() && *now != first).await;
    signal("-STOP", &other);
    signal("-CONT", &sleeper);
    // Either it says so, or it has done something to a job that is not its own any more.
    let settled = || async {
        let tries = "SELECT (SELECT coalesce(sum(tries), 0) FROM mq_msgs) + (SELECT count(*) FROM dead_jobs)";
        let tries: i64 = sqlx::query_scalar(tries).fetch_one(&system.db).await.expect("counted");
        let knows = sleeper.output().iter().any(|line| line.contains("taken over by another worker"));
        (knows, tries, notes(&system).await.len())
    };
    let settled = eventually("the sleeper has settled", settled, |settled| *settled != (false, 0, 0)).await;
    assert_eq!(settled, (true, 0, 0), "it knows, has counted no try, and did not commit");
    signal("-CONT", &other);
    eventually("the job is done", || queued(&system), |n| *n == 0).await;
    assert_eq!(notes(&system).await, ["take longer"]);
}

#[tokio::test]
async fn a_leased_job_whose_worker_is_killed_runs_again() {
    let system = prepared().await;
    let mut killed = worker(&system);
    enqueue(&system, "carry", "take a while").await;
    eventually("the job is leased", || leased(&system), |n| *n == 1).await;
    killed.kill();
    let _other = worker(&system);
    eventually("the other worker does it", || queued(&system), |n| *n == 0).await;
    assert_eq!(notes(&system).await, ["take a while"]);
}

/// A job that kills its workers is dead-lettered, and its neighbours are not.
async fn a_killer_is_found(kind: &str) {
    let system = prepared().await;
    let poison = enqueue(&system, kind, "kill").await;
    for _ in 0..5 {
        enqueue(&system, kind, "work beside it").await;
    }
    let mut deaths = 0;
    // The worker that dead-letters it lives on: killed now, it would be one more death of whatever it is running.
    let _survivor = loop {
        let process = worker(&system);
        let over = || async { process.has_ended() || last_error(&system, poison).await.is_some() };
        eventually("the worker dies, or dead-letters the job", over, |over| *over).await;
        if !process.has_ended() {
            break process;
        }
        deaths += 1;
        assert!(deaths < 100, "the job still kills workers");
    };
    assert!(last_error(&system, poison).await.expect("dead").contains("workers died"));
    eventually("the others are done", || queued(&system), |n| *n == 0).await;
    assert_eq!(notes(&system).await, ["work beside it"; 5]);
}

#[tokio::test]
async fn a_tx_job_that_kills_its_workers_is_buried_and_its_neighbours_are_not() {
    a_killer_is_found("misbehave").await;
}

#[tokio::test]
async fn a_leased_job_that_kills_its_workers_is_buried_and_its_neighbours_are_not() {
    a_killer_is_found("carry").await;
}

#[tokio::test]
async fn a_running_handler_sees_its_cancellation_and_a_queued_job_is_buried() {
    let system = prepared().await;
    let worker = worker(&system);
    let running = enqueue(&system, "carry", "wait to be cancelled").await;
    eventually("the handler has begun", || worker.in_flight("carry", "job"), |running| *running == 1).await;
    assert_eq!(cancel(&system, running).await, Cancelled::Asked);
    eventually("it is dead", || last_error(&system, running), Option::is_some).await;
    assert_eq!(notes(&system).await, ["wait to be cancelled"], "the handler went on to say that it saw it");
    let waiting = enqueue(&system, "of_a_later_version", "work").await;
    assert_eq!(cancel(&system, waiting).await, Cancelled::DeadLettered);
    assert_eq!(last_error(&system, waiting).await.as_deref(), Some("cancelled by olga"));
    assert_eq!(cancel(&system, waiting).await, Cancelled::Dead);
    assert_eq!(cancel(&system, Uuid::nil()).await, Cancelled::Unknown);
}

/// Ends the sessions in the middle of a run of that handler, but for those that were ended before.
async fn lose_transactions(system: &System, before: &[i32]) -> Vec<i32> {
    let lost = "WITH found AS MATERIALIZED (
                  SELECT pid FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name LIKE 'probe-worker%' AND pid <> ALL ($1)
                    AND state = 'idle in transaction' AND query LIKE '%enough%')
                SELECT pid FROM (SELECT pid, pg_terminate_backend(pid), pg_notify('gavel_jobs', 'misbehave') FROM found) e";
    // A look at what the attempt before does about it, which must be nothing.
    for _ in 0..10 {
        if before.is_empty() || system.waiting_for_locks("probe-worker").await > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    sqlx::query_scalar(lost).bind(before).fetch_all(&system.db).await.expect("asked")
}

#[tokio::test]
async fn an_attempt_that_lost_its_transaction_has_no_say_in_what_becomes_of_the_job() {
    let system = prepared().await;
    let _worker = worker(&system);
    let job = enqueue(&system, "misbehave", "lose its transaction").await;
    // A loss costs no try; but on a busy machine the handler may run out of time before it hears of one.
    let patient = sqlx::query("UPDATE mq_msgs SET attempts = 50 WHERE id = $1").bind(job).execute(&system.db).await;
    assert_eq!(patient.expect("updated").rows_affected(), 1);
    // Twice: while the second has the row locked, the first could not settle anything.
    let mut lost = Vec::new();
    while lost.len() < 2 {
        let end = || lose_transactions(&system, &lost);
        lost.extend(eventually("a transaction is lost while the handler runs", end, |pids| !pids.is_empty()).await);
    }
    sqlx::query("INSERT INTO notes (text) VALUES ('enough')").execute(&system.db).await.expect("noted");
    eventually("another attempt has done it", || queued(&system), |n| *n == 0).await;
    assert_eq!(notes(&system).await, ["enough", "lose its transaction"]);
    let dead = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM dead_jobs").fetch_one(&system.db).await;
    assert_eq!(dead.expect("counted"), 0, "it was not cancelled");
}

#[tokio::test]
async fn the_handlers_verdict_decides() {
    let system = prepared().await;
    let _worker = worker(&system);
    let reset = || async { sqlx::query("ALTER SEQUENCE tries RESTART").execute(&system.db).await.expect("reset") };
    enqueue(&system, "misbehave", "retry once").await;
    eventually("it is done", || queued(&system), |n| *n == 0).await;
    assert_eq!(notes(&system).await, ["retry once"], "a retried run leaves nothing");
    reset().await;
    enqueue(&system, "misbehave", "snooze once").await;
    eventually("it is done", || queued(&system), |n| *n == 0).await;
    assert_eq!(notes(&system).await, ["retry once", "snooze once", "snooze once"], "a snoozed run is committed");
    let dead = enqueue(&system, "misbehave", "give up").await;
    eventually("it is dead", || last_error(&system, dead), Option::is_some).await;
    assert_eq!(notes(&system).await.len(), 3, "one that gave up left nothing");
    let history: i32 = sqlx::query_scalar("SELECT jsonb_array_length(errors) FROM dead_jobs WHERE job_id = $1")
        .bind(dead)
        .fetch_one(&system.db)
        .await
        .expect("it is there");
    assert_eq!(history, 1);
    let mut conn = Conn::from(system.db.acquire().await.expect("connected"));
    let dead = Selection::Ids(vec![dead]);
    assert_eq!(ops::redrive(&mut conn, &dead).await.expect("queued again"), 1);
    let twice = || async {
        sqlx::query_scalar::<_, i32>("SELECT coalesce(max(jsonb_array_length(errors)), 0) FROM dead_jobs")
            .fetch_one(&system.db)
            .await
            .expect("looked")
    };
    eventually("it died again, with its history", twice, |n| *n == 2).await;
    assert_eq!(ops::discard(&mut conn, &dead).await.expect("discarded"), 1);
}

#[tokio::test]
async fn jobs_of_one_key_run_in_their_order_across_workers_even_when_one_is_retried() {
    let system = prepared().await;
    let _workers = [worker(&system), worker(&system)];
    enqueue(&system, "misbehave", "enqueue in order").await;
    eventually("all are done", || notes(&system), |notes| notes.len() == 21).await;
    for key in ["left", "right"] {
        let got: Vec<_> = notes(&system).await.into_iter().filter(|note| note.starts_with(key)).collect();
        let expected: Vec<_> = (0..10).map(|number| format!("{key} {number}")).collect();
        assert_eq!(got, expected);
    }
}

#[tokio::test]
async fn ordered_jobs_of_a_stock_producer_run_in_order_also_when_one_in_the_middle_is_cancelled() {
    let system = prepared().await;
    let mut conn = Conn::from(system.db.acquire().await.expect("connected"));
    ops::pause(&mut conn, "misbehave", "olga").await.expect("paused");
    let mut ids = Vec::new();
    for how in ["one", "two", "three", "four"] {
        let mut job = JobBuilder::new("misbehave");
        job.set_channel_name("misbehave").set_channel_args("a stock channel").set_ordered(true);
        job.set_json(&serde_json::json!({ "how": how })).expect("JSON");
        ids.push(job.spawn(&system.db).await.expect("enqueued"));
    }
    assert_eq!(cancel(&system, ids[1]).await, Cancelled::DeadLettered);
    let _workers = [worker(&system), worker(&system)];
    ops::resume(&mut conn, "misbehave").await.expect("resumed");
    eventually("the others are done", || queued(&system), |n| *n == 0).await;
    assert_eq!(notes(&system).await, ["one", "three", "four"]);
}

#[tokio::test]
async fn a_unique_key_keeps_or_replaces_what_is_queued() {
    let system = prepared().await;
    let _worker = worker(&system);
    enqueue(&system, "misbehave", "enqueue uniquely").await;
    let waiting = || async {
        let sql = "SELECT args->>'how' FROM mq_msgs WHERE unique_key = 'k'";
        sqlx::query_scalar::<_, String>(sql).fetch_all(&system.db).await.expect("read")
    };
    eventually("one is queued", waiting, |waiting| waiting.len() == 1).await;
    assert_eq!(waiting().await, ["third"], "kept, kept, and replaced");
}

#[tokio::test]
async fn a_paused_kind_waits_and_goes_on_when_resumed() {
    let system = prepared().await;
    let _worker = worker(&system);
    let mut conn = Conn::from(system.db.acquire().await.expect("connected"));
    ops::pause(&mut conn, "misbehave", "olga").await.expect("paused");
    enqueue(&system, "misbehave", "work later").await;
    // One after the other: the worker has come by often by then.
    for done in 1..=10 {
        enqueue(&system, "carry", "work now").await;
        eventually("another kind goes on", || notes(&system), |notes| notes.len() >= done).await;
    }
    assert_eq!(notes(&system).await, ["work now"; 10], "what is paused waits");
    assert_eq!(queued(&system).await, 1);
    assert!(ops::resume(&mut conn, "misbehave").await.expect("resumed"));
    let later = |notes: &Vec<String>| notes.last().is_some_and(|last| last == "work later");
    eventually("it goes on", || notes(&system), later).await;
    assert!(!ops::resume(&mut conn, "misbehave").await.expect("not paused"));
}

#[tokio::test]
async fn what_is_more_urgent_goes_first() {
    let system = prepared().await;
    let _worker = worker(&system);
    enqueue(&system, "misbehave", "enqueue by priority").await;
    eventually("all are done", || notes(&system), |notes| notes.len() == 5).await;
    assert_eq!(notes(&system).await, ["enqueue by priority", "Urgent", "High", "Normal", "Low"]);
}

/// Enqueues ten of a kind and runs them in two workers; gives how many runs overlapped, and the seconds from first to
/// last.
async fn overlaps(kind: &str) -> (usize, f64) {
    let system = prepared().await;
    let _workers = [worker(&system), worker(&system)];
    for _ in 0..10 {
        enqueue(&system, kind, "").await;
    }
    eventually("all are done", || queued(&system), |n| *n == 0).await;
    let texts: Vec<String> =
        sqlx::query_scalar("SELECT text FROM notes ORDER BY at").fetch_all(&system.db).await.expect("read");
    assert_eq!(texts.len(), 20);
    let took = "SELECT extract(epoch FROM max(at) - min(at))::float8 FROM notes";
    let took = sqlx::query_scalar(took).fetch_one(&system.db).await.expect("read");
    (texts.chunks(2).filter(|pair| *pair != ["in", "out"]).count(), took)
}

#[tokio::test]
async fn a_kind_limited_across_processes_runs_one_at_a_time_and_only_so_often() {
    let (overlapping, took_s) = overlaps("metered").await;
    assert_eq!(overlapping, 0);
    assert!(took_s > 0.8, "five at once and five a second: ten take a second, not {took_s} s");
    assert_eq!(overlaps("narrow").await.0, 0);
}

#[tokio::test]
async fn workers_whose_every_connection_is_cut_recover_by_themselves() {
    let system = prepared().await;
    let _workers = [worker(&system), worker(&system)];
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name LIKE 'probe-worker%'";
    for round in 0..4 {
        for n in 0..50 {
            let kind = if n % 2 == 0 { "misbehave" } else { "carry" };
            enqueue(&system, kind, &format!("note {round}")).await;
        }
        let cut = || async { sqlx::query_scalar::<_, i64>(cut).fetch_one(&system.db).await.expect("cut") };
        eventually("there were connections, and they are cut", cut, |n| *n > 0).await;
    }
    eventually("every job is done", || queued(&system), |n| *n == 0).await;
    assert_eq!(notes(&system).await.len(), 200, "each once");
}
