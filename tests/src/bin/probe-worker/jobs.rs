//! Jobs of every kind of queue.
use crate::{note, tries};
use gavel_runtime::{
    Class, Error, Member, Result, Tx,
    batch::Verdicts,
    job::{self, Attempt, Job, Verdict},
    spec::{Durability, Limits, Queue, Spec, Trigger},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Notes what it is told, all of a claim at once.
#[derive(Serialize, Deserialize)]
pub(crate) struct Together {
    pub(crate) how: String,
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
pub(crate) struct Ranked {
    pub(crate) how: String,
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
pub(crate) struct InOrder {
    pub(crate) key: String,
    pub(crate) number: i32,
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
pub(crate) struct Carry {
    pub(crate) how: String,
}

impl Job for Carry {
    const KIND: &'static str = "carry";
    const RETRIES: u32 = 2;
}

pub(crate) struct Carrier;

impl job::IoHandler for Carrier {
    const SPEC: &'static Spec = &Spec::new("carry", Trigger::Job(Queue::IO))
        .limits(Limits::DEFAULT.retries(2).concurrency(4).timeout(Duration::from_secs(20)));
    type Job = Carry;

    async fn handle(attempt: &Attempt, job: &Carry) -> Result<Verdict> {
        match job.how.as_str() {
            "take a while" => tokio::time::sleep(Duration::from_millis(700)).await,
            "take longer" => tokio::time::sleep(Duration::from_secs(3)).await,
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
pub(crate) struct Tally {
    pub(crate) how: String,
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
pub(crate) struct Metered {}

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
pub(crate) struct Narrow {}

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
