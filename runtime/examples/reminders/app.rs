//! Reminders: each becomes a letter, a person's in their order, and an event says so; after the last one, a digest
//! counts them.
use gavel_runtime::{
    App, Error, Event, Result, Tx, ids,
    job::{self, Attempt, Job, Options, Unique, Verdict},
    schedule::{self, CatchUp, CronSchedule, Tick},
    spec::{Durability, Queue, Spec, Trigger},
};
use serde::{Deserialize, Serialize};
use sqlx::migrate::Migrator;
use std::time::Duration;

/// Everything it does. Without the housekeeping its events would stay in the outbox.
pub(crate) fn app(migrations: &'static Migrator) -> App {
    App::new("reminders", migrations)
        .job_tx::<Reminder>()
        .job_io::<Digester>()
        .schedule_tx::<Shredder>()
        .with(gavel_operators::housekeeping)
}

/// Remind somebody of something.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Remind {
    /// Whom.
    pub(crate) who: String,
    /// Of what.
    pub(crate) text: String,
}

impl Job for Remind {
    const KIND: &'static str = "remind";
    const RETRIES: u32 = 3;
    /// One person's reminders one after another, in their order.
    const PER_KEY: Option<u32> = Some(1);

    fn key(&self) -> String {
        self.who.clone()
    }
}

/// Writes the letter, and sees to it that a digest follows.
pub(crate) struct Reminder;

impl job::TxHandler for Reminder {
    const SPEC: &'static Spec = &job::spec::<Remind>(Queue::TX);
    type Job = Remind;

    async fn handle(tx: &mut Tx, job: &Remind) -> Result<Verdict> {
        if job.text.is_empty() {
            return Ok(Verdict::Dead { why: "there is nothing to remind of".to_owned() });
        }
        let letter = sqlx::query_scalar("INSERT INTO letters (who, text) VALUES ($1, $2) RETURNING letter_id");
        let letter_id: i64 = letter.bind(&job.who).bind(&job.text).fetch_one(tx.conn()).await?;
        // Each letter has one event, its first and last. A real application would have a message of its own for it.
        tx.emit(Event::new(ids::ordered(), (letter_id.to_string(), 1), "letter.written", &job.who))?;
        // However many reminders come within a tenth of a second, one digest follows them.
        let soon = Options::new().delay(Duration::from_millis(100)).unique(Unique::Keep(job.who.clone()));
        tx.enqueue(&Digest { who: job.who.clone() }, soon).await?;
        Ok(Verdict::Done)
    }
}

/// Count somebody's letters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Digest {
    /// Whose.
    pub(crate) who: String,
}

impl Job for Digest {
    const KIND: &'static str = "digest";
    const RETRIES: u32 = 3;
}

/// Reads outside any transaction, then writes the digest together with the job's completion.
pub(crate) struct Digester;

impl job::IoHandler for Digester {
    const SPEC: &'static Spec = &job::spec::<Digest>(Queue::IO.durability(Durability::Inline));
    type Job = Digest;

    async fn handle(attempt: &Attempt, job: &Digest) -> Result<Verdict> {
        let count = sqlx::query_scalar("SELECT count(*) FROM letters WHERE who = $1").bind(&job.who);
        let letters: i64 = count.fetch_one(attempt.reads()).await?;
        if attempt.cancelled().is_cancelled() {
            return Err(Error::invalid("not wanted any more"));
        }
        let mut tx = attempt.begin().await?;
        sqlx::query("INSERT INTO digests (digest_id, who, letters) VALUES ($1, $2, $3)")
            .bind(attempt.job_id())
            .bind(&job.who)
            .bind(letters)
            .execute(tx.conn())
            .await?;
        attempt.complete(tx).await?;
        Ok(Verdict::Done)
    }
}

/// Shreds old letters every night in Berlin; a night that was missed does not matter.
pub(crate) struct Shredder;

impl schedule::TxHandler for Shredder {
    const SPEC: &'static Spec = &Spec::new(
        "shred",
        Trigger::Schedule(CronSchedule::cron("30 3 * * *").zone("Europe/Berlin").catch_up(CatchUp::None)),
    );

    async fn handle(tx: &mut Tx, tick: Tick) -> Result<()> {
        let old = sqlx::query("DELETE FROM letters WHERE at < $1::timestamptz - interval '30 days'").bind(tick.due_at);
        old.execute(tx.conn()).await?;
        Ok(())
    }
}
