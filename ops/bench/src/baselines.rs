//! What others do with the same work: the stock runner of the crate sqlxmq, graphile-worker and pg-boss in Node, and
//! River in Go.
use crate::{Measured, waiting::reached};
use anyhow::{Context, bail};
use serde::Deserialize;
use sqlx::{Executor, PgPool, postgres::PgPoolOptions};
use sqlxmq::{CurrentJob, JobBuilder, JobRunnerOptions};
use std::{
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

static RAN: AtomicU64 = AtomicU64::new(0);
/// sqlxmq's own schema, as its migrations leave it.
const SCHEMA: &str = include_str!("../../../migrations/expand/0005_copy_sqlxmq_schema.sql");

pub(crate) async fn sqlxmq_schema(pool: &PgPool) -> anyhow::Result<()> {
    pool.execute(SCHEMA).await?;
    Ok(())
}

/// Stock enqueueing, each in a transaction, `batch` to a transaction: the crate has no bulk call.
pub(crate) async fn sqlxmq_enqueue(pool: &PgPool, count: u64, batch: u64) -> anyhow::Result<Measured> {
    let began = Instant::now();
    for first in (0..count).step_by(usize::try_from(batch)?) {
        let mut tx = pool.begin().await?;
        for n in first..(first + batch).min(count) {
            let mut job = JobBuilder::new("noop");
            job.set_channel_name("noop").set_json(&serde_json::json!({ "n": n }))?;
            job.spawn(&mut *tx).await?;
        }
        tx.commit().await?;
    }
    Ok(Measured { jobs: count, took: began.elapsed() })
}

#[expect(clippy::disallowed_methods, reason = "the stock runner starts its jobs like this")]
fn dispatch(mut job: CurrentJob) {
    tokio::spawn(async move {
        if job.complete().await.is_ok() {
            RAN.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// The stock runner at 50 to 100 jobs at a time.
pub(crate) async fn sqlxmq_drain(database_url: &str, count: u64) -> anyhow::Result<Measured> {
    let pool =
        PgPoolOptions::new().max_connections(16).acquire_timeout(Duration::from_mins(1)).connect(database_url).await?;
    sqlxmq_enqueue(&pool, count, 1_000).await?;
    pool.execute("VACUUM ANALYZE").await?;
    RAN.store(0, Ordering::Relaxed);
    let began = Instant::now();
    let mut runner =
        JobRunnerOptions::new(&pool, dispatch).set_concurrency(50, 100).set_channel_names(&["noop"]).run().await?;
    reached("sqlxmq has run every job", count, || async { Ok(RAN.load(Ordering::Relaxed)) }).await?;
    let took = began.elapsed();
    runner.stop().await;
    pool.close().await;
    Ok(Measured { jobs: count, took })
}

#[derive(Deserialize)]
struct Printed {
    jobs: u64,
    seconds: f64,
}

/// A program that does the same work in another language, and prints what it measured.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// The program, and what stands before its arguments.
    pub(crate) command: Vec<String>,
    pub(crate) dir: String,
}

impl Peer {
    /// Those that there are: two in Node, and River where it was built.
    pub(crate) fn all(node: &str) -> Vec<Self> {
        let script =
            |name, file: &str| Self { name, command: vec!["node".to_owned(), file.to_owned()], dir: node.to_owned() };
        let mut all = vec![script("graphile-worker", "graphile.mjs"), script("pg-boss", "pgboss.mjs")];
        if let Ok(program) = std::env::var("RIVER") {
            all.push(Self { name: "River", command: vec![program], dir: node.to_owned() });
        }
        all
    }

    /// Does one thing.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<Measured> {
        let (program, first) = self.command.split_first().context("a command has a program")?;
        let output = Command::new(program).args(first).args(arguments).current_dir(&self.dir).output();
        let output = output.with_context(|| format!("{program} can't be started"))?;
        if !output.status.success() {
            bail!("{} {arguments:?}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        printed(self.name, &String::from_utf8_lossy(&output.stdout))
    }
}

fn printed(name: &str, text: &str) -> anyhow::Result<Measured> {
    let line = text.lines().last().with_context(|| format!("{name} printed nothing"))?;
    let Printed { jobs, seconds } = serde_json::from_str(line)?;
    Ok(Measured { jobs, took: Duration::from_secs_f64(seconds) })
}
