//! Handlers tested with the runtime's own harness: the example's, which are not about auctions, and one that forgets
//! what handlers must not forget.
use chrono::Utc;
use gavel::EXPAND;
use gavel::apply_user_stats::ApplyUserStats;
use gavel_accounts::postgres::Role;
use gavel_proto::events_v1::{BidAccepted, ItemEvent, ItemState, item_event::Fact};
use gavel_runtime::{
    App, Result,
    config::{Backends, Env},
    job::{self, Attempt, Job, Options, Verdict, inspect},
    spec::{Queue, Spec, Trigger},
    testing::{BOUNDARIES, FROZEN, Harness, Worker},
};
use gavel_tests::{Process, System, broker::Broker, eventually, process::binary};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[path = "../../../runtime/examples/reminders/app.rs"]
mod reminders;

use reminders::{Digest, Remind, Reminder, Shredder};

const TABLES: &str = include_str!("../../../runtime/examples/reminders/migrations/1000_create_letters.sql");

/// A harness moves time itself, and so acts as the owner of the tables.
fn backends(system: &System) -> Backends {
    backends_of(&system.variables(&[("DATABASE_URL", system.administrator_url())]))
}

fn backends_of(variables: &[(String, String)]) -> Backends {
    let mut env = Env::new(variables.iter().cloned());
    let backends = Backends::from_env(&mut env);
    env.finish().expect("the harness sets everything");
    backends
}

async fn harness() -> (System, Harness) {
    let system = System::new().await;
    for statement in TABLES.split_inclusive(';').filter(|statement| statement.contains("CREATE")) {
        sqlx::query(statement).execute(&system.db).await.expect("created");
    }
    let harness = Harness::new(|| reminders::app(&EXPAND), &backends(&system)).expect("valid");
    (system, harness)
}

async fn count(system: &System, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&system.db).await.expect("counted")
}

fn remind(who: &str, text: &str) -> Remind {
    Remind { who: who.to_owned(), text: text.to_owned() }
}

const LETTERS: &str = "SELECT count(*) FROM letters";
const DIGESTS: &str = "SELECT count(*) FROM digests";

#[tokio::test]
async fn a_tx_job_survives_a_crash_at_every_boundary_it_passes() {
    let (system, harness) = harness().await;
    let survival =
        harness.survives(&remind("ada", "water the plants"), async || Ok(count(&system, LETTERS).await)).await;
    let survival = survival.expect("one letter each");
    let passed: Vec<_> = BOUNDARIES.into_iter().chain([FROZEN]).filter(|b| survival.passed(b)).collect();
    assert_eq!(passed, ["after_claim", "before_commit", "after_commit", FROZEN]);
}

#[tokio::test]
async fn a_leased_job_that_commits_with_its_completion_survives_them_too() {
    let (system, harness) = harness().await;
    let survival =
        harness.survives(&Digest { who: "ada".to_owned() }, async || Ok(count(&system, DIGESTS).await)).await;
    let survival = survival.expect("one digest each");
    let passed: Vec<_> = BOUNDARIES.into_iter().chain([FROZEN]).filter(|b| survival.passed(b)).collect();
    assert_eq!(passed, ["after_claim", "before_commit", "after_commit", FROZEN]);
}

/// Writes a letter, and forgets that it may run twice.
#[derive(Serialize, Deserialize)]
struct Careless;

impl Job for Careless {
    const KIND: &'static str = "careless";
    const RETRIES: u32 = 3;
}

impl job::IoHandler for Careless {
    const SPEC: &'static Spec = &Spec::new("careless", Trigger::Job(Queue::IO));
    type Job = Self;

    async fn handle(attempt: &Attempt, _: &Self) -> Result<Verdict> {
        let mut tx = attempt.begin().await?;
        sqlx::query("INSERT INTO letters (who, text) VALUES ('all', 'again')").execute(tx.conn()).await?;
        attempt.commit(tx).await?;
        Ok(Verdict::Done)
    }
}

#[tokio::test]
async fn the_harness_finds_a_handler_that_is_not_idempotent_and_names_the_boundary() {
    let (system, _) = harness().await;
    let harness =
        Harness::new(|| App::new("careless", &EXPAND).job_io::<Careless>(), &backends(&system)).expect("valid");
    let found = harness.survives(&Careless, async || Ok(count(&system, LETTERS).await)).await;
    let error = found.expect_err("it writes twice").to_string();
    assert!(error.contains("before_complete") && error.contains("2 times"), "{error}");
}

#[tokio::test]
async fn handlers_run_by_hand_and_queues_drain_in_time_that_a_test_moves() {
    let (system, harness) = harness().await;
    let refused = harness.run_tx::<Reminder>(&remind("ada", "")).await.expect("it ran");
    assert!(matches!(refused, Verdict::Dead { .. }));
    assert_eq!(count(&system, LETTERS).await, 0);
    assert_eq!(harness.run_tx::<Reminder>(&remind("ada", "a")).await.expect("it ran"), Verdict::Done);
    let later = Options::new().delay(Duration::from_hours(1));
    for text in ["b", "c", ""] {
        harness.enqueue(&remind("ada", text), later.clone()).await.expect("enqueued");
    }
    assert!(harness.drain().await.expect("drained").is_empty());
    assert_eq!(count(&system, LETTERS).await, 1, "an hour is not over");
    harness.advance(Duration::from_hours(1)).await.expect("it is now");
    let dead = harness.drain().await.expect("drained");
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].kind.as_str(), dead[0].state), ("remind", inspect::State::Dead));
    assert_eq!(count(&system, LETTERS).await, 3);
    harness.advance(Duration::from_secs(1)).await.expect("moved");
    harness.drain().await.expect("drained");
    assert!(count(&system, DIGESTS).await > 0);

    sqlx::query("UPDATE letters SET at = at - interval '31 days' WHERE text = 'a'")
        .execute(&system.db)
        .await
        .expect("aged");
    harness.tick::<Shredder>(Utc::now()).await.expect("it ran");
    assert_eq!(count(&system, LETTERS).await, 2, "the old one is shredded");
}

#[tokio::test]
async fn a_message_delivered_by_hand_twice_counts_once() {
    let system = System::new().await;
    let harness = Harness::new(gavel::app, &backends(&system)).expect("valid");
    let item_id = uuid::Uuid::new_v4().to_string();
    let item = ItemState { item_id, currency: "EUR".to_owned(), ..ItemState::default() };
    let bid = BidAccepted { bidder_id: "ann".to_owned(), ..BidAccepted::default() };
    let event = ItemEvent { item: Some(item), fact: Some(Fact::BidAccepted(bid)), ..ItemEvent::default() };
    let [first, second] = [(); 2].map(|()| (uuid::Uuid::new_v4(), event.clone()));
    let malformed = (uuid::Uuid::new_v4(), ItemEvent::default());
    let verdicts = harness.deliver_all::<ApplyUserStats>(&[first.clone(), malformed, second]).await.expect("applied");
    assert_eq!(verdicts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    harness.deliver_all::<ApplyUserStats>(&[first]).await.expect("it is known");
    assert_eq!(count(&system, "SELECT bids_placed FROM user_stats").await, 2);
    assert_eq!(count(&system, "SELECT count(*) FROM inbox").await, 2, "what failed has no receipt");
}

#[tokio::test]
async fn another_application_relays_its_events_with_handlers_that_it_only_registers() {
    let (system, harness) = harness().await;
    let broker = Broker::connect(&system.amqp_url).await;
    broker.tap_exchange("reminders.events", "letters", &["letter.#"]).await;
    let worker =
        Worker::start(reminders::app(&EXPAND), &backends_of(&system.variables(&[("AMQP_URL", &system.amqp_url)])));
    for text in ["water the plants", "close the window"] {
        harness.enqueue(&remind("ada", text), Duration::ZERO).await.expect("enqueued");
    }
    for event in broker.take("letters", 2).await {
        assert_eq!(String::decode(event.data.as_slice()).expect("a message"), "ada");
        assert!(event.properties.message_id().is_some(), "it is known again where it comes twice");
    }
    let left = || count(&system, "SELECT count(*) FROM outbox");
    eventually("the outbox is empty again", left, |left| *left == 0).await;
    worker.expect("valid").stop(Duration::from_secs(30)).await.expect("drained");
}

#[tokio::test]
async fn the_example_runs_on_an_empty_database() {
    let system = System::new().await;
    for statement in ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION pg_database_owner"] {
        sqlx::query(statement).execute(&system.db).await.expect("emptied");
    }
    // It makes its own tables.
    let variables = system.variables(&[("DATABASE_URL", system.database_url(Role::Migrator))]);
    let mut example = Process::start(&binary("examples/reminders"), &[], &variables);
    let ended = example.ended_within(Duration::from_secs(150)).await;
    let output = example.output();
    assert!(ended.success(), "{output:?}");
    for line in ["letter to ada: water the plants", "letter to ada: close the window", "digest for ada: 2 letters"] {
        assert!(output.iter().any(|said| said == line), "{line:?} is missing in {output:?}");
    }
    assert!(output.iter().any(|line| line.starts_with("dead remind: there is nothing")), "{output:?}");
}
