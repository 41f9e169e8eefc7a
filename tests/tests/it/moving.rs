//! Jobs of the crate sqlxmq beside handlers, moved over one at a time, as the example does it.
use gavel_accounts::postgres::Role;
use gavel_tests::{Process, System, eventually, process::binary};
use serde_json::json;
use sqlx::{PgPool, migrate::Migrator};
use sqlxmq::JobBuilder;

#[path = "../../../runtime/examples/moving/app.rs"]
mod example;

static NONE: Migrator = Migrator::DEFAULT;

async fn emptied() -> System {
    let system = System::new().await;
    for statement in ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION pg_database_owner"] {
        sqlx::query(statement).execute(&system.db).await.expect("emptied");
    }
    system
}

async fn worker(system: &System, moved: bool) -> Process {
    let worker = Process::start(
        &binary("examples/moving"),
        &[],
        &system.variables(&[
            ("MOVED", if moved { "true" } else { "false" }),
            ("GAVEL_LEASE_MS", "2000"),
            // It makes its own tables.
            ("DATABASE_URL", system.database_url(Role::Migrator)),
        ]),
    );
    worker.ops_address().await;
    worker
}

/// As the team's producers enqueue it.
async fn enqueue(db: &PgPool, name: &str, channel: &str, who: &str) {
    let mut job = JobBuilder::new(name);
    job.set_channel_name(channel).set_retries(20).set_retry_backoff(std::time::Duration::from_secs(3));
    job.set_json(&json!({ "who": who })).expect("JSON").spawn(db).await.expect("enqueued");
}

/// Kind, who sends it, to how many. The crate's runner has no fence: on a busy machine a job may run once more than it
/// was asked to.
async fn mails(system: &System) -> Vec<(String, String, i64)> {
    let count = "SELECT kind, by, count(DISTINCT who) FROM mails GROUP BY kind, by ORDER BY kind, by";
    sqlx::query_as(count).fetch_all(&system.db).await.expect("counted")
}

async fn twice(system: &System) -> i64 {
    let twice =
        "SELECT count(*) FROM (SELECT FROM mails WHERE who LIKE 'new-%' GROUP BY kind, who HAVING count(*) > 1) m";
    sqlx::query_scalar(twice).fetch_one(&system.db).await.expect("counted")
}

fn sent(kind: &str, by: &str, count: i64) -> (String, String, i64) {
    (kind.to_owned(), by.to_owned(), count)
}

fn is_ten_invoices(line: &str) -> bool {
    let of_invoices = line.starts_with("gavel_sqlxmq_jobs_completed") && line.contains("job=\"invoice\"");
    of_invoices && line.rsplit(' ').next().and_then(|count| count.parse().ok()).is_some_and(|count: u64| count >= 10)
}

#[tokio::test]
async fn jobs_of_the_crate_move_to_handlers_one_at_a_time_and_none_is_lost_nor_a_handlers_done_twice() {
    let system = emptied().await;
    let mut before = worker(&system, false).await;
    for n in 0..40 {
        enqueue(&system.db, "welcome", "mail", &format!("early-{n}")).await;
        enqueue(&system.db, "invoice", "mail", &format!("early-{n}")).await;
    }
    // Killed in the middle: what it had begun comes again.
    eventually("some are done", || mails(&system), |mails| mails.iter().map(|mail| mail.2).sum::<i64>() > 10).await;
    before.kill();
    let mut again = worker(&system, false).await;
    let all = [sent("invoice", "sqlxmq", 40), sent("welcome", "sqlxmq", 40)];
    eventually("all are done", || mails(&system), |mails| *mails == all).await;

    // One of each is still queued when the first job moves.
    again.terminate();
    assert!(again.ended().await.success(), "it drains");
    for n in 0..10 {
        enqueue(&system.db, "welcome", "mail", &format!("late-{n}")).await;
        enqueue(&system.db, "invoice", "mail", &format!("late-{n}")).await;
    }
    let mut after = worker(&system, true).await;
    for n in 0..10 {
        enqueue(&system.db, "welcome", "welcome", &format!("new-{n}")).await;
    }
    let all = [sent("invoice", "sqlxmq", 50), sent("welcome", "handler", 20), sent("welcome", "sqlxmq", 40)];
    eventually("what was queued is handed on, what is new is the handler's", || mails(&system), |mails| *mails == all)
        .await;
    assert_eq!(twice(&system).await, 0);
    let log = after.log();
    let said =
        |line: &serde_json::Value| line["msg"].as_str().is_some_and(|text| text.contains("Job `invoice` completed"));
    assert!(log.iter().any(said), "what the crate says of its jobs is in the log");
    let counts = |metrics: &String| metrics.lines().any(is_ten_invoices);
    eventually("those that ended well are counted", || after.metrics(), counts).await;
    after.terminate();
    assert!(after.ended().await.success());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM mq_msgs WHERE id <> uuid_nil()")
        .fetch_one(&system.db)
        .await
        .expect("counted");
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_drain_waits_for_jobs_that_have_begun_and_a_failed_one_is_counted() {
    let system = emptied().await;
    let mut worker = worker(&system, false).await;
    for n in 0..30 {
        enqueue(&system.db, "invoice", "mail", &format!("{n}")).await;
    }
    let mut job = JobBuilder::new("invoice");
    job.set_channel_name("mail").set_json(&json!({})).expect("JSON");
    job.spawn(&system.db).await.expect("enqueued");
    let failed = |metrics: &String| {
        metrics.lines().any(|line| {
            line.starts_with("gavel_handler_invocations") && line.contains("mail_jobs") && line.contains("internal")
        })
    };
    eventually("the failure is counted", || worker.metrics(), failed).await;
    worker.terminate();
    assert!(worker.ended().await.success());
    // A try is used up when it begins: so what has begun has also come to its end.
    let begun = "SELECT count(*) FROM mq_msgs m JOIN mq_payloads p ON p.id = m.id
                 WHERE m.attempts < 21 AND p.payload_json ->> 'who' IS NOT NULL";
    let begun: i64 = sqlx::query_scalar(begun).fetch_one(&system.db).await.expect("counted");
    assert_eq!(begun, 0, "of these nobody has waited for the end");
}

#[test]
fn a_channel_that_is_a_handlers_kind_is_refused_at_the_start() {
    use gavel_runtime::{
        App,
        spec::{Limits, Spec, Trigger},
        sqlxmq_jobs,
    };
    struct Greedy;
    impl sqlxmq_jobs::Jobs for Greedy {
        const SPEC: &'static Spec = &Spec::new("greedy", Trigger::Sqlxmq(&["welcome", "mail"])).limits(Limits::DEFAULT);

        fn registry(_: &PgPool) -> sqlxmq::JobRegistry {
            sqlxmq::JobRegistry::new(&[])
        }
    }
    struct Everything;
    impl sqlxmq_jobs::Jobs for Everything {
        const SPEC: &'static Spec = &Spec::new("everything", Trigger::Sqlxmq(&[]));

        fn registry(_: &PgPool) -> sqlxmq::JobRegistry {
            sqlxmq::JobRegistry::new(&[])
        }
    }
    let app: App = example::app(&NONE, true).sqlxmq::<Greedy>().sqlxmq::<Everything>();
    let errors = app.checked().err().expect("refused").to_string();
    for named in ["the channel welcome is the kind of a handler", "the channel mail has jobs", "no channels"] {
        assert!(errors.contains(named), "{named}: {errors}");
    }
}
