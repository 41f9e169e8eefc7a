//! A team moves from the crate sqlxmq to handlers, one job at a time.
//!
//! 1. `App::sqlxmq::<Mail>()`: the jobs that there are run in the worker as they are.
//! 2. `welcome` becomes a handler: a kind of its own with the arguments of before. Producers enqueue that from now on.
//!    What is queued of the old job hands itself on, in the transaction that completes it.
//! 3. Once nothing of the old job is queued any more, its function goes. `invoice` is next, or stays where it is.
use gavel_runtime::{
    App, Result, Tx,
    job::{self, Job, Verdict},
    spec::{Limits, Queue, Spec, Trigger},
    sqlxmq_jobs,
};
use serde::{Deserialize, Serialize};
use sqlx::{PgExecutor, PgPool, migrate::Migrator};
use sqlxmq::{CurrentJob, JobBuilder, JobRegistry};
use std::time::Duration;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The arguments of both jobs, before and after.
#[derive(Serialize, Deserialize)]
pub(crate) struct Args {
    pub(crate) who: String,
}

/// As it was: an invoice takes a while.
#[sqlxmq::job(channel_name = "mail", name = "invoice")]
async fn invoice(mut current: CurrentJob) -> Result<(), Failed> {
    let Args { who } = current.json()?.ok_or("no arguments")?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut tx = current.pool().begin().await?;
    sent(&mut *tx, "invoice", &who, "sqlxmq").await?;
    current.complete_with_transaction(tx).await?;
    Ok(())
}

/// As it was.
#[sqlxmq::job(channel_name = "mail", name = "welcome")]
async fn welcome_before(mut current: CurrentJob) -> Result<(), Failed> {
    let Args { who } = current.json()?.ok_or("no arguments")?;
    let mut tx = current.pool().begin().await?;
    sent(&mut *tx, "welcome", &who, "sqlxmq").await?;
    current.complete_with_transaction(tx).await?;
    Ok(())
}

/// What is left of it: it hands on what is queued.
#[sqlxmq::job(channel_name = "mail", name = "welcome")]
async fn welcome_handed_on(mut current: CurrentJob) -> Result<(), Failed> {
    let args: Args = current.json()?.ok_or("no arguments")?;
    let mut tx = current.pool().begin().await?;
    let mut next = JobBuilder::new(Welcome::KIND);
    next.set_channel_name(Welcome::KIND).set_json(&args)?.spawn(&mut *tx).await?;
    current.complete_with_transaction(tx).await?;
    Ok(())
}

async fn sent(executor: impl PgExecutor<'_>, kind: &str, who: &str, by: &str) -> Result<(), sqlx::Error> {
    let insert = sqlx::query("INSERT INTO mails (kind, who, by) VALUES ($1, $2, $3)").bind(kind).bind(who).bind(by);
    insert.execute(executor).await.map(drop)
}

const MAIL: Spec = Spec::new("mail_jobs", Trigger::Sqlxmq(&["mail"])).limits(Limits::DEFAULT.concurrency(8));

/// The jobs before anything has moved.
pub(crate) struct Mail;

impl sqlxmq_jobs::Jobs for Mail {
    const SPEC: &'static Spec = &MAIL;

    fn registry(_: &PgPool) -> JobRegistry {
        JobRegistry::new(&[invoice, welcome_before])
    }
}

/// The jobs after `welcome` has.
pub(crate) struct RestOfMail;

impl sqlxmq_jobs::Jobs for RestOfMail {
    const SPEC: &'static Spec = &MAIL;

    fn registry(_: &PgPool) -> JobRegistry {
        JobRegistry::new(&[invoice, welcome_handed_on])
    }
}

/// The kind that `welcome` has become. Its effect and its completion commit together, so there is exactly one.
#[derive(Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) who: String,
}

impl Job for Welcome {
    const KIND: &'static str = "welcome";
    const RETRIES: u32 = 20;
}

pub(crate) struct SendWelcome;

impl job::TxHandler for SendWelcome {
    const SPEC: &'static Spec = &job::spec::<Welcome>(Queue::TX);
    type Job = Welcome;

    async fn handle(tx: &mut Tx, job: &Welcome) -> Result<Verdict> {
        sent(tx.conn(), "welcome", &job.who, "handler").await?;
        Ok(Verdict::Done)
    }
}

/// The application, before and after the move.
pub(crate) fn app(migrator: &'static Migrator, has_moved: bool) -> App {
    let app = App::new("moving", migrator);
    if has_moved { app.sqlxmq::<RestOfMail>().job_tx::<SendWelcome>() } else { app.sqlxmq::<Mail>() }
}
