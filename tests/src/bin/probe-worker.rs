//! A worker that is not about auctions: jobs, a schedule and a consumer that misbehave on request. It shows that the
//! runtime stands alone, and lets tests see what it does with handlers that fail.
use gavel_runtime::{
    App, Class, Error, Event, Member, Result, Tx,
    batch::Verdicts,
    config::{Backends, Env, ProcessConfig},
    ids,
    job::{self, Attempt, Job, Options, Priority, Unique, Verdict},
    message, process,
    schedule::{self, Tick as Due, Timetable},
    spec::{Durability, Limits, Queue, Spec, Trigger},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

async fn note(tx: &mut Tx, text: &str) -> Result<()> {
    sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(text).execute(tx.conn()).await?;
    Ok(())
}

/// Counts tries past any rollback.
async fn tries(tx: &mut Tx) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT nextval('tries')").fetch_one(tx.conn()).await?)
}

/// What each job does.
#[derive(Serialize, Deserialize)]
struct Do {
    how: String,
}

impl Job for Do {
    const KIND: &'static str = "misbehave";
    const RETRIES: u32 = 2;
}

struct Misbehave;

impl job::TxHandler for Misbehave {
    const SPEC: &'static Spec = &Spec::new("misbehave", Trigger::Job(Queue::TX)).limits(Limits {
        timeout: Duration::from_secs(2),
        retries: 2,
        concurrency: 2,
    });
    type Job = Do;

    async fn handle(tx: &mut Tx, job: &Do) -> Result<Verdict> {
        note(tx, &job.how).await?;
        match job.how.as_str() {
            "work" => {
                let event = Event {
                    event_id: ids::ordered(),
                    key: "probe".to_owned(),
                    version: 1,
                    routing_key: "probe.worked",
                    message_type: "google.protobuf.Empty".to_owned(),
                    payload: Vec::new(),
                };
                tx.emit(event)?;
                Ok(Verdict::Done)
            }
            "fail twice" if tries(tx).await? < 3 => Err(Error::internal(std::io::Error::other("not yet"))),
            "be hopeless" => Err(Error::invalid("this can't be done")),
            "panic" => panic!("as asked"),
            "hang" => {
                sqlx::query("SELECT pg_sleep(60)").execute(tx.conn()).await?;
                Ok(Verdict::Done)
            }
            "swallow an error" => {
                let _ = sqlx::query("SELECT 1 / 0").execute(tx.conn()).await;
                Ok(Verdict::Done)
            }
            "retry once" if tries(tx).await? < 2 => {
                Ok(Verdict::Retry { after: Some(Duration::ZERO), why: "not now".to_owned() })
            }
            "snooze once" if tries(tx).await? < 2 => Ok(Verdict::Snooze(Duration::from_millis(10))),
            "lose its transaction" if tries(tx).await? < 3 => {
                tx.invocation().cancelled.clone().cancelled().await;
                Err(Error::invalid("another attempt has it"))
            }
            "give up" => Ok(Verdict::Dead { why: "no use".to_owned() }),
            "kill" => std::process::abort(),
            "enqueue in order" => {
                for number in 0..10 {
                    for key in ["left", "right"] {
                        tx.enqueue(&InOrder { key: key.to_owned(), number }, Duration::ZERO).await?;
                    }
                }
                Ok(Verdict::Done)
            }
            "enqueue by priority" => {
                for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent] {
                    let job = Ranked { how: format!("{priority:?}") };
                    tx.enqueue(&job, Options::new().delay(Duration::from_millis(1)).priority(priority)).await?;
                }
                Ok(Verdict::Done)
            }
            "enqueue uniquely" => {
                let once = |how: &str| (Do { how: how.to_owned() }, Options::new().delay(Duration::from_hours(1)));
                for (how, unique) in [
                    ("first", Unique::Keep("k".to_owned())),
                    ("second", Unique::Keep("k".to_owned())),
                    ("third", Unique::Replace("k".to_owned())),
                ] {
                    let (job, options) = once(how);
                    tx.enqueue(&job, options.unique(unique)).await?;
                }
                Ok(Verdict::Done)
            }
            "enqueue together, uniquely" => {
                let unique = Options::new().unique(Unique::Keep("k".to_owned()));
                tx.enqueue(&Together { how: "be unavailable".to_owned() }, unique).await?;
                Ok(Verdict::Done)
            }
            "be unavailable" => Err(Error::new(Class::Unavailable, "nothing answers")),
            _ => Ok(Verdict::Done),
        }
    }
}

/// Notes what it is told, all of a claim at once.
#[derive(Serialize, Deserialize)]
struct Together {
    how: String,
}

impl Job for Together {
    const KIND: &'static str = "together";
    const RETRIES: u32 = 2;
}

impl job::BatchHandler for Together {
    const SPEC: &'static Spec =
        &Spec::new("together", Trigger::Job(Queue::TX)).limits(Limits::DEFAULT.retries(2).concurrency(1));
    type Job = Self;

    async fn handle(tx: &mut Tx, batch: &[Member<Self>]) -> Result<Verdicts<Verdict>> {
        let mut verdicts = Vec::new();
        for Member { input: Self { how }, .. } in batch {
            verdicts.push(match how.as_str() {
                "panic" => panic!("as asked"),
                "give up" => Ok(Verdict::Dead { why: "no use".to_owned() }),
                "be hopeless" => Err(Error::invalid("this can't be done")),
                "be unavailable" => Err(Error::new(Class::Unavailable, "nothing answers")),
                how => note(tx, how).await.map(|()| Verdict::Done),
            });
        }
        note(tx, &format!("batch of {}", batch.len())).await?;
        Ok(verdicts)
    }
}

/// Notes what it is told, in one lane: what is claimed first is noted first.
#[derive(Serialize, Deserialize)]
struct Ranked {
    how: String,
}

impl Job for Ranked {
    const KIND: &'static str = "ranked";
    const RETRIES: u32 = 2;
}

impl job::TxHandler for Ranked {
    const SPEC: &'static Spec =
        &Spec::new("ranked", Trigger::Job(Queue::TX)).limits(Limits::DEFAULT.retries(2).concurrency(1));
    type Job = Self;

    async fn handle(tx: &mut Tx, job: &Self) -> Result<Verdict> {
        note(tx, &job.how).await?;
        Ok(Verdict::Done)
    }
}

/// Numbers that must come in their order, per key.
#[derive(Serialize, Deserialize)]
struct InOrder {
    key: String,
    number: i32,
}

impl Job for InOrder {
    const KIND: &'static str = "in_order";
    const RETRIES: u32 = 5;
    const PER_KEY: Option<u32> = Some(1);

    fn key(&self) -> String {
        self.key.clone()
    }
}

impl job::TxHandler for InOrder {
    const SPEC: &'static Spec =
        &Spec::new("in_order", Trigger::Job(Queue::TX)).limits(Limits::DEFAULT.retries(5).concurrency(4));
    type Job = Self;

    async fn handle(tx: &mut Tx, job: &Self) -> Result<Verdict> {
        // The third fails at first: those behind it wait.
        if job.number == 3 && tries(tx).await? < 4 {
            return Err(Error::internal(std::io::Error::other("not yet")));
        }
        note(tx, &format!("{} {}", job.key, job.number)).await?;
        Ok(Verdict::Done)
    }
}

/// What each leased job does.
#[derive(Serialize, Deserialize)]
struct Carry {
    how: String,
}

impl Job for Carry {
    const KIND: &'static str = "carry";
    const RETRIES: u32 = 2;
}

struct Carrier;

impl job::IoHandler for Carrier {
    const SPEC: &'static Spec = &Spec::new("carry", Trigger::Job(Queue::IO))
        .limits(Limits::DEFAULT.retries(2).concurrency(4).timeout(Duration::from_secs(20)));
    type Job = Carry;

    async fn handle(attempt: &Attempt, job: &Carry) -> Result<Verdict> {
        match job.how.as_str() {
            "take a while" => tokio::time::sleep(Duration::from_millis(700)).await,
            "kill" => std::process::abort(),
            "wait to be cancelled" => attempt.cancelled().cancelled().await,
            _ => {}
        }
        let mut tx = attempt.begin().await?;
        note(&mut tx, &job.how).await?;
        if job.how == "wait to be cancelled" {
            attempt.commit(tx).await?;
            return Err(Error::new(Class::Refused, "stopped as asked"));
        }
        attempt.complete(tx).await?;
        Ok(Verdict::Done)
    }
}

/// A leased job that is completed in a group, and idempotent by what it looks for first.
#[derive(Serialize, Deserialize)]
struct Tally {
    how: String,
}

impl Job for Tally {
    const KIND: &'static str = "tally";
    const RETRIES: u32 = 2;
}

impl job::IoHandler for Tally {
    const SPEC: &'static Spec = &Spec::new("tally", Trigger::Job(Queue::IO)).limits(Limits::DEFAULT.retries(2));
    type Job = Self;

    async fn handle(attempt: &Attempt, job: &Self) -> Result<Verdict> {
        let mut tx = attempt.begin().await?;
        sqlx::query("INSERT INTO notes (text) SELECT $1 WHERE NOT EXISTS (SELECT FROM notes WHERE text = $1)")
            .bind(&job.how)
            .execute(tx.conn())
            .await?;
        attempt.commit(tx).await?;
        Ok(Verdict::Done)
    }
}

/// Two kinds whose runs must not overlap, in whatever process; the first may also begin only so often.
#[derive(Serialize, Deserialize)]
struct Metered {}

impl Job for Metered {
    const KIND: &'static str = "metered";
    const RETRIES: u32 = 2;
}

async fn in_and_out(tx: &mut Tx) -> Result<()> {
    note(tx, "in").await?;
    sqlx::query("SELECT pg_sleep(0.02)").execute(tx.conn()).await?;
    note(tx, "out").await
}

impl job::TxHandler for Metered {
    const SPEC: &'static Spec =
        &Spec::new("metered", Trigger::Job(Queue::TX.across(1).rate(5, Duration::from_secs(1))))
            .limits(Limits::DEFAULT.retries(2).concurrency(4));
    type Job = Self;

    async fn handle(tx: &mut Tx, _: &Self) -> Result<Verdict> {
        in_and_out(tx).await?;
        Ok(Verdict::Done)
    }
}

#[derive(Serialize, Deserialize)]
struct Narrow {}

impl Job for Narrow {
    const KIND: &'static str = "narrow";
    const RETRIES: u32 = 2;
}

impl job::IoHandler for Narrow {
    const SPEC: &'static Spec = &Spec::new("narrow", Trigger::Job(Queue::IO.across(1).durability(Durability::Inline)))
        .limits(Limits::DEFAULT.retries(2).concurrency(4));
    type Job = Self;

    async fn handle(attempt: &Attempt, _: &Self) -> Result<Verdict> {
        let mut tx = attempt.begin().await?;
        in_and_out(&mut tx).await?;
        attempt.commit(tx).await?;
        Ok(Verdict::Done)
    }
}

struct Heard;

impl message::TxHandler for Heard {
    const SPEC: &'static Spec = &Spec::new("heard", Trigger::Message(&["probe.worked"]));
    type Message = ();

    async fn handle(tx: &mut Tx, (): &()) -> Result<()> {
        note(tx, "heard").await
    }
}

struct Tick;

impl schedule::TxHandler for Tick {
    const SPEC: &'static Spec = &Spec::new("tick", Trigger::Schedule(Timetable::cron("* * * * * *")));

    async fn handle(tx: &mut Tx, tick: Due) -> Result<()> {
        sqlx::query("INSERT INTO ticks (tick_at) VALUES ($1)").bind(tick.due_at).execute(tx.conn()).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut env = Env::from_process();
    let backends = Backends::from_env(&mut env);
    let config = ProcessConfig::of_worker(&mut env);
    env.finish()?;
    let app = App::new("gavel", &gavel::EXPAND)
        .poll_io::<gavel::relay_outbox::RelayOutbox>()
        .job_tx::<Misbehave>()
        .job_tx::<InOrder>()
        .job_tx::<Ranked>()
        .job_tx_batch::<Together>()
        .job_io::<Carrier>()
        .job_io::<Tally>()
        .job_tx::<Metered>()
        .job_io::<Narrow>()
        .message_tx::<Heard>()
        .schedule_tx::<Tick>();
    process::run_worker(app, "probe-worker", &backends, &config, &[]).await
}
