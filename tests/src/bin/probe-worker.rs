//! A worker that is not about auctions: jobs, a schedule and a consumer that misbehave on request. It shows that the
//! runtime stands alone, and lets tests see what it does with handlers that fail.
use gavel_runtime::{
    App, Class, Error, Event, Result, Tx,
    config::{Backends, Env, ProcessConfig},
    ids,
    job::{self, Job},
    message, process, schedule,
    spec::{Limits, Spec, Trigger},
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
    const SPEC: &'static Spec = &Spec::new("misbehave", Trigger::Job).limits(Limits {
        timeout: Duration::from_millis(500),
        retries: 2,
        concurrency: 2,
    });
    type Job = Do;

    async fn handle(tx: &mut Tx, job: &Do) -> Result<()> {
        note(tx, &job.how).await?;
        match job.how.as_str() {
            "work" => {
                let event = Event {
                    event_id: ids::ordered(),
                    key: "probe".to_owned(),
                    version: 1,
                    routing_key: "probe.worked",
                    message_type: "probe.Worked".to_owned(),
                    payload: Vec::new(),
                };
                tx.emit(event).await
            }
            "fail twice" if tries(tx).await? < 3 => Err(Error::internal(std::io::Error::other("not yet"))),
            "be hopeless" => Err(Error::invalid("this can't be done")),
            "panic" => panic!("as asked"),
            "hang" => {
                sqlx::query("SELECT pg_sleep(60)").execute(tx.conn()).await?;
                Ok(())
            }
            "swallow an error" => {
                let _ = sqlx::query("SELECT 1 / 0").execute(tx.conn()).await;
                Ok(())
            }
            "be unavailable" => Err(Error::new(Class::Unavailable, "nothing answers")),
            _ => Ok(()),
        }
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
    const SPEC: &'static Spec = &Spec::new("tick", Trigger::Schedule(Duration::from_secs(1)));

    async fn handle(tx: &mut Tx) -> Result<()> {
        sqlx::query("INSERT INTO ticks (tick_at) SELECT tick_at FROM schedule_ticks WHERE schedule = 'tick'")
            .execute(tx.conn())
            .await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut env = Env::from_process();
    let backends = Backends::from_env(&mut env);
    let config = ProcessConfig::from_env(&mut env, ([127, 0, 0, 1], 0).into());
    env.finish()?;
    let app = App::new("gavel", &gavel::EXPAND)
        .poll_io::<gavel::relay_outbox::RelayOutbox>()
        .job_tx::<Misbehave>()
        .message_tx::<Heard>()
        .schedule_tx::<Tick>();
    process::run_worker(app, "probe-worker", &backends, &config, &[]).await
}
