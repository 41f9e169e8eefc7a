//! What the runtime does with jobs that fail, schedules in several replicas, and registrations that are wrong. None of
//! it is about auctions.
use gavel_runtime::{
    App, Result, Tx,
    schedule::{self, CronSchedule, Tick},
    spec::{Limits, Queue, Spec, Trigger},
};
use gavel_tests::{Process, System, eventually, process::binary};
use sqlxmq::JobBuilder;
use std::{path::PathBuf, time::Duration};

/// What the probe writes to.
pub(crate) const TABLES: [&str; 3] = [
    "CREATE TABLE notes (text text NOT NULL)",
    "CREATE TABLE ticks (tick_at timestamptz NOT NULL)",
    "CREATE SEQUENCE tries",
];

async fn prepared() -> System {
    let system = System::new().await;
    for statement in TABLES {
        sqlx::query(statement).execute(&system.db).await.expect("prepared");
    }
    system
}

fn worker(system: &System) -> Process {
    Process::start(&probe(), &[], &system.variables(&[]))
}

fn probe() -> PathBuf {
    binary("probe-worker")
}

/// Enqueues as any program with the crate sqlxmq would.
async fn enqueue(system: &System, kind: &str, how: &str) {
    let mut job = JobBuilder::new(kind);
    job.set_channel_name(kind).set_retries(2).set_json(&serde_json::json!({ "how": how })).expect("JSON");
    job.spawn(&system.db).await.expect("enqueued");
}

async fn count(system: &System, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&system.db).await.expect("counted")
}

const QUEUED: &str = "SELECT count(*) FROM mq_msgs WHERE channel_name = 'misbehave'";

#[tokio::test]
async fn a_jobs_effect_its_event_and_its_completion_are_one() {
    let system = prepared().await;
    enqueue(&system, "misbehave", "work").await;
    let state = || async {
        sqlx::query_as::<_, (i64, i64, i64)>(
            "SELECT (SELECT count(*) FROM notes WHERE text = 'work'), (SELECT count(*) FROM outbox),
                    (SELECT count(*) FROM mq_msgs WHERE id <> uuid_nil())",
        )
        .fetch_one(&system.db)
        .await
        .expect("counted")
    };
    // Out of the broker's reach, so that the event stays where it can be seen.
    let doomed = |stage: &str| {
        let fault = format!("misbehave.{stage}=abort@1");
        let variables = system.variables(&[("GAVEL_FAILPOINTS", &fault), ("AMQP_URL", "amqp://127.0.0.1:1")]);
        Process::start(&probe(), &[], &variables)
    };
    assert!(!doomed("before_commit").ended().await.success());
    assert_eq!(state().await, (0, 0, 1), "died before its commit: the job waits and nothing else is there");
    assert!(!doomed("after_commit").ended().await.success());
    assert_eq!(state().await, (1, 1, 0), "died after its commit: effect and event are there, the job is gone");
    let _worker = worker(&system);
    let heard = || count(&system, "SELECT count(*) FROM notes WHERE text = 'heard'");
    eventually("the event is consumed", heard, |n| *n == 1).await;
    assert_eq!(count(&system, "SELECT count(*) FROM notes WHERE text = 'work'").await, 1);
}

#[tokio::test]
async fn a_job_that_fails_is_tried_again_and_one_that_never_works_is_buried_with_its_error() {
    let system = prepared().await;
    let mut process = worker(&system);
    enqueue(&system, "misbehave", "fail twice").await;
    eventually("the third try works", || count(&system, "SELECT count(*) FROM notes"), |n| *n == 1).await;
    for (how, error, attempts) in [
        ("be hopeless", "this can't be done", 1),
        ("panic", "as asked", 3),
        ("hang", "out of time", 3),
        ("swallow an error", "aborted", 3),
        ("be unavailable", "nothing answers", 3),
    ] {
        enqueue(&system, "misbehave", how).await;
        let dead = || async {
            sqlx::query_as::<_, (String, i32)>(
                "SELECT last_error, attempts FROM dead_jobs WHERE arguments->>'how' = $1",
            )
            .bind(how)
            .fetch_optional(&system.db)
            .await
            .expect("looked")
        };
        let (last_error, tried) = eventually("the job is dead", dead, Option::is_some).await.expect("dead");
        assert!(last_error.contains(error), "{how}: {last_error}");
        assert_eq!(tried, attempts, "{how}");
    }
    assert_eq!(count(&system, QUEUED).await, 0);
    assert_eq!(count(&system, "SELECT count(*) FROM notes").await, 1, "no failed try left anything");
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_kind_nobody_registered_waits_untouched() {
    let system = prepared().await;
    let _worker = worker(&system);
    enqueue(&system, "of_a_later_version", "work").await;
    enqueue(&system, "misbehave", "work").await;
    eventually("the known kind is done", || count(&system, QUEUED), |n| *n == 0).await;
    let attempts: i32 = sqlx::query_scalar("SELECT attempts FROM mq_msgs WHERE channel_name = 'of_a_later_version'")
        .fetch_one(&system.db)
        .await
        .expect("it is there");
    assert_eq!(attempts, 3, "two retries and the first try: none is used up");
}

#[tokio::test]
async fn a_tick_happens_once_across_replicas() {
    let system = prepared().await;
    let _workers = [worker(&system), worker(&system), worker(&system)];
    let ticks = || count(&system, "SELECT count(*) FROM ticks");
    let before = eventually("a tick", ticks, |n| *n >= 1).await;
    hold_the_schedule(&system).await;
    eventually("a few ticks more", ticks, |n| *n >= before + 4).await;
    let (all, distinct): (i64, i64) = sqlx::query_as("SELECT count(*), count(DISTINCT tick_at) FROM ticks")
        .fetch_one(&system.db)
        .await
        .expect("counted");
    assert_eq!(all, distinct, "a tick happened twice");
}

/// Has its row until two ticks are due, or two replicas wait for it: whoever looks at it without a lock has seen by then
/// what another has seen, and goes on as soon as it is free.
async fn hold_the_schedule(system: &System) {
    let mut tx = system.db.begin().await.expect("begun");
    sqlx::query("SELECT FROM schedule_ticks WHERE schedule = 'tick' FOR UPDATE").execute(&mut *tx).await.expect("held");
    let state = || async {
        sqlx::query_as::<_, (bool, i64)>(
            "SELECT clock_timestamp() > tick_at + interval '3 seconds',
                    (SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock')
             FROM schedule_ticks WHERE schedule = 'tick'",
        )
        .fetch_one(&system.db)
        .await
        .expect("looked")
    };
    eventually("two ticks are due", state, |(are_due, waiting)| *are_due || *waiting >= 2).await;
    tx.commit().await.expect("free again");
}

struct First;
struct Second;
struct Broken;

macro_rules! ticking {
    ($handler:ty, $spec:expr) => {
        impl schedule::TxHandler for $handler {
            const SPEC: &'static Spec = &$spec;
            async fn handle(_: &mut Tx, _: Tick) -> Result<()> {
                Ok(())
            }
        }
    };
}
ticking!(First, Spec::new("twin", Trigger::Schedule(CronSchedule::cron("* * * * * *"))));
ticking!(Second, Spec::new("twin", Trigger::Schedule(CronSchedule::cron("@daily"))));
ticking!(Broken, Spec::new("Bad Name", Trigger::Job(Queue::TX)).limits(Limits::DEFAULT.timeout(Duration::ZERO)));

#[test]
fn a_duplicate_or_invalid_registration_is_refused_by_name() {
    let app = || App::new("probe", &gavel::EXPAND);
    assert!(app().schedule_tx::<First>().checked().is_ok());
    let twins = app().schedule_tx::<First>().schedule_tx::<Second>().checked().err().expect("refused").to_string();
    assert!(twins.contains("\"twin\": registered twice"), "{twins}");
    let broken = app().schedule_tx::<Broken>().checked().err().expect("refused");
    assert_eq!(broken.faults.len(), 3, "{broken}");
    assert!(broken.faults.iter().all(|fault| fault.contains("\"Bad Name\"")), "{broken}");
    let orphaned = app().contracts(gavel_proto::DESCRIPTORS).checked().err().expect("refused").to_string();
    assert!(orphaned.contains("gavel.v1.BidService/PlaceBid has no handler"), "{orphaned}");
}

#[tokio::test]
async fn jobs_of_a_batch_that_fail_leave_the_others_of_their_claim_done_once() {
    let system = prepared().await;
    for n in 0..12 {
        enqueue(&system, "together", &format!("note {n}")).await;
    }
    for how in ["panic", "give up", "be hopeless"] {
        enqueue(&system, "together", how).await;
    }
    let _worker = worker(&system);
    let left = "SELECT count(*) FROM mq_msgs WHERE channel_name = 'together'";
    eventually("all are done or dead", || count(&system, left), |left| *left == 0).await;
    assert_eq!(count(&system, "SELECT count(*) FROM notes WHERE text LIKE 'note %'").await, 12);
    assert_eq!(count(&system, "SELECT count(DISTINCT text) FROM notes WHERE text LIKE 'note %'").await, 12);
    let batches = "SELECT count(*) FROM notes WHERE text LIKE 'batch of %' AND text <> 'batch of 1'";
    assert!(count(&system, batches).await > 0, "some ran together");
    let dead: Vec<String> = sqlx::query_scalar("SELECT last_error FROM dead_jobs WHERE kind = 'together' ORDER BY 1")
        .fetch_all(&system.db)
        .await
        .expect("read");
    assert_eq!(dead.len(), 3, "{dead:?}");
}

#[tokio::test]
async fn a_job_of_a_batch_that_is_put_off_keeps_its_unique_key() {
    let system = prepared().await;
    enqueue(&system, "misbehave", "enqueue together, uniquely").await;
    let _worker = worker(&system);
    let put_off = "SELECT count(*) FROM mq_msgs WHERE channel_name = 'together' AND tries > 0";
    eventually("it has been tried", || count(&system, put_off), |tried| *tried == 1).await;
    let keyed = "SELECT count(*) FROM mq_msgs WHERE channel_name = 'together' AND unique_key = 'k'";
    eventually("its key is taken", || count(&system, keyed), |keyed| *keyed == 1).await;
    enqueue(&system, "misbehave", "enqueue together, uniquely").await;
    eventually("the second is enqueued", || count(&system, QUEUED), |left| *left == 0).await;
    let together = "SELECT count(*) FROM mq_msgs WHERE channel_name = 'together'";
    assert_eq!(count(&system, together).await, 1, "there is no second job of that key");
}
