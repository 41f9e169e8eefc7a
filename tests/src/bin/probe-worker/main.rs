//! A worker that is not about auctions: jobs, a schedule and a consumer that misbehave on request. It shows that the
//! runtime stands alone, and lets tests see what it does with handlers that fail.
mod jobs;
mod misbehave;

use gavel_runtime::{
    App, Result, Tx,
    app::Chosen,
    config::{Backends, Env, ProcessConfig},
    message, process,
    schedule::{self, CronSchedule, Tick as Due},
    spec::{Spec, Trigger},
};
use jobs::{Carrier, InOrder, Metered, Narrow, Ranked, Tally, Together};
use misbehave::Misbehave;

async fn note(tx: &mut Tx, text: &str) -> Result<()> {
    sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(text).execute(tx.conn()).await?;
    Ok(())
}

/// Counts tries past any rollback.
async fn tries(tx: &mut Tx) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT nextval('tries')").fetch_one(tx.conn()).await?)
}

struct Heard;

impl message::TxHandler for Heard {
    const SPEC: &'static Spec = &Spec::new("heard", Trigger::Message(&["probe.worked"]));
    type Message = ();

    async fn handle(tx: &mut Tx, (): &()) -> Result<()> {
        note(tx, "heard").await
    }
}

/// The same consumer in the next version, whose message is another.
struct HeardByNext;

impl message::TxHandler for HeardByNext {
    const SPEC: &'static Spec = Heard::SPEC;
    type Message = prost_types::Duration;

    async fn handle(tx: &mut Tx, _: &prost_types::Duration) -> Result<()> {
        note(tx, "heard by version 2").await
    }
}

struct Tick;

impl schedule::TxHandler for Tick {
    const SPEC: &'static Spec = &Spec::new("tick", Trigger::Schedule(CronSchedule::cron("* * * * * *")));

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
        .poll_io::<gavel_operators::relay_outbox::RelayOutbox>()
        .job_tx::<Misbehave>()
        .job_tx::<InOrder>()
        .job_tx::<Ranked>()
        .job_tx_batch::<Together>()
        .job_io::<Carrier>()
        .job_io::<Tally>()
        .job_tx::<Metered>()
        .job_io::<Narrow>()
        .schedule_tx::<Tick>();
    let app = match std::env::var("PROBE_VERSION").as_deref() {
        Ok("2") => app.message_tx::<HeardByNext>(),
        _ => app.message_tx::<Heard>(),
    };
    process::run_worker(app, "probe-worker", &backends, &config, &Chosen::default()).await
}
