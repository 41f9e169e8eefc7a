//! Gavel's own side of the job benchmarks.
use crate::{
    Measured,
    waiting::{reached, until},
};
use gavel_runtime::{
    App, Result, Tx,
    changes::{History, Sources},
    config::{Backends, Env},
    job::{self, Attempt, Job, Verdict},
    schema,
    spec::{Limits, Queue, Spec, Trigger},
    testing::Worker,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, migrate::Migrator};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) static EXPAND: Migrator = sqlx::migrate!("../../migrations/expand");
static BACKFILL: Migrator = sqlx::migrate!("../../migrations/backfill");
static CONTRACT: Migrator = sqlx::migrate!("../../migrations/contract");
static DROP: Migrator = sqlx::migrate!("../../migrations/drop");
static RAN: AtomicU64 = AtomicU64::new(0);
static PICKED_UP: Mutex<Vec<Instant>> = Mutex::new(Vec::new());
/// Jobs need no broker.
const NOWHERE: &str = "amqp://127.0.0.1:1";
const GRACE: Duration = Duration::from_secs(20);

/// Makes a database what a new one is: with every change over.
pub(crate) async fn migrate(database_url: &str) -> anyhow::Result<()> {
    let sources = Sources { expand: &EXPAND, backfill: &BACKFILL, contract: &CONTRACT, drop: &DROP };
    let history = History::read(sources)?;
    schema::migrate(&SecretString::from(database_url.to_owned()), &EXPAND, (&history, &[])).await.map(drop)
}

/// Nothing, in a transaction.
#[derive(Serialize, Deserialize)]
pub(crate) struct NoopTx {
    n: u64,
}

impl Job for NoopTx {
    const KIND: &'static str = "noop_tx";
    const RETRIES: u32 = 3;
}

impl job::TxHandler for NoopTx {
    const SPEC: &'static Spec = &Spec::new("noop_tx", Trigger::Job(Queue::TX)).limits(Limits::DEFAULT.concurrency(2));
    type Job = Self;

    async fn handle(_: &mut Tx, job: &Self) -> Result<Verdict> {
        if job.n == u64::MAX {
            PICKED_UP.lock().expect("nobody panics").push(Instant::now());
        }
        RAN.fetch_add(1, Ordering::Relaxed);
        Ok(Verdict::Done)
    }
}

/// Nothing, under a lease.
#[derive(Serialize, Deserialize)]
pub(crate) struct NoopIo {
    n: u64,
}

impl Job for NoopIo {
    const KIND: &'static str = "noop_io";
    const RETRIES: u32 = 3;
}

impl job::IoHandler for NoopIo {
    const SPEC: &'static Spec = &Spec::new("noop_io", Trigger::Job(Queue::IO)).limits(Limits::DEFAULT.concurrency(64));
    type Job = Self;

    async fn handle(_: &Attempt, _: &Self) -> Result<Verdict> {
        RAN.fetch_add(1, Ordering::Relaxed);
        Ok(Verdict::Done)
    }
}

pub(crate) fn backends(database_url: &str, amqp_url: &str) -> anyhow::Result<Backends> {
    let nowhere = [("DATABASE_URL", database_url), ("AMQP_URL", amqp_url), ("REDIS_URL", "redis://127.0.0.1:1")];
    let mut env = Env::new(nowhere.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let backends = Backends::from_env(&mut env);
    env.finish()?;
    Ok(backends)
}

fn idle(database_url: &str) -> anyhow::Result<Worker> {
    Worker::start(App::new("bench", &EXPAND), &backends(database_url, NOWHERE)?)
}

/// Enqueues `count` jobs of either kind, in transactions of `batch`.
pub(crate) async fn enqueue(database_url: &str, leased: bool, count: u64, batch: u64) -> anyhow::Result<Measured> {
    let worker = idle(database_url)?;
    let began = Instant::now();
    for first in (0..count).step_by(usize::try_from(batch)?) {
        let io = worker.io();
        let mut tx = io.begin().await?;
        let numbers = first..(first + batch).min(count);
        if batch == 1 {
            tx.enqueue(&NoopTx { n: first }, Duration::ZERO).await?;
        } else if leased {
            tx.enqueue_many(&numbers.map(|n| NoopIo { n }).collect::<Vec<_>>(), Duration::ZERO).await?;
        } else {
            tx.enqueue_many(&numbers.map(|n| NoopTx { n }).collect::<Vec<_>>(), Duration::ZERO).await?;
        }
        io.commit(tx).await?;
    }
    let took = began.elapsed();
    worker.stop(GRACE).await?;
    Ok(Measured { jobs: count, took })
}

/// Jobs that are queued.
pub(crate) async fn left(pool: &PgPool) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM mq_msgs WHERE id <> uuid_nil()").fetch_one(pool).await?)
}

/// Fills the queue, then measures workers from their start until the queue is empty. Also gives the bytes of WAL per
/// job.
pub(crate) async fn drain(
    database_url: &str,
    pool: &PgPool,
    leased: bool,
    count: u64,
    workers: usize,
) -> anyhow::Result<(Measured, f64)> {
    enqueue(database_url, leased, count, 10_000).await?;
    for statement in ["VACUUM ANALYZE mq_msgs", "CHECKPOINT"] {
        sqlx::query(statement).execute(pool).await?;
    }
    let before: String = sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(pool).await?;
    RAN.store(0, Ordering::Relaxed);
    let app = || {
        let app = App::new("bench", &EXPAND);
        if leased { app.job_io::<NoopIo>() } else { app.job_tx::<NoopTx>() }
    };
    let began = Instant::now();
    let mut running = Vec::new();
    for _ in 0..workers {
        running.push(Worker::start(app(), &backends(database_url, NOWHERE)?)?);
    }
    reached("every job has run", count, || async { Ok(RAN.load(Ordering::Relaxed)) }).await?;
    until("no job is left", || async { Ok(left(pool).await? == 0) }).await?;
    let took = began.elapsed();
    let wal: f64 = sqlx::query_scalar("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1::pg_lsn)::float8")
        .bind(before)
        .fetch_one(pool)
        .await?;
    for worker in running {
        worker.stop(GRACE).await?;
    }
    Ok((Measured { jobs: count, took }, wal / f64::from(u32::try_from(count)?)))
}

/// A worker of both kinds, until standard input ends.
pub(crate) async fn work(database_url: &str) -> anyhow::Result<()> {
    let app = App::new("bench", &EXPAND).job_tx::<NoopTx>().job_io::<NoopIo>();
    let worker = Worker::start(app, &backends(database_url, NOWHERE)?)?;
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    worker.stop(GRACE).await
}

/// As [`pickup`], sampled every 20 ms for `time` while another producer enqueues `load` jobs a second.
pub(crate) async fn pickup_under_load(
    database_url: &str,
    load: u64,
    time: Duration,
) -> anyhow::Result<(Duration, Duration)> {
    let worker = Worker::start(App::new("bench", &EXPAND).job_tx::<NoopTx>(), &backends(database_url, NOWHERE)?)?;
    let (producer, prober) = (idle(database_url)?, idle(database_url)?);
    let until = Instant::now() + time;
    let produce = async {
        let mut every = tokio::time::interval(Duration::from_millis(10));
        while Instant::now() < until {
            every.tick().await;
            let io = producer.io();
            let mut tx = io.begin().await?;
            tx.enqueue_many(&(0..load / 100).map(|n| NoopTx { n }).collect::<Vec<_>>(), Duration::ZERO).await?;
            io.commit(tx).await?;
        }
        anyhow::Ok(())
    };
    let probe = sampled(&prober, Duration::from_millis(20), |_| Instant::now() < until);
    let ((), mut took) = tokio::try_join!(produce, probe)?;
    producer.stop(GRACE).await?;
    prober.stop(GRACE).await?;
    worker.stop(GRACE).await?;
    Ok(percentiles(&mut took))
}

/// From the commit of a job to its handler's first line, one after another, for as long as `more` says.
async fn sampled(producer: &Worker, pause: Duration, more: impl Fn(usize) -> bool) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    PICKED_UP.lock().expect("nobody panics").clear();
    while more(took.len()) {
        tokio::time::sleep(pause).await;
        let io = producer.io();
        let mut tx = io.begin().await?;
        tx.enqueue(&NoopTx { n: u64::MAX }, Duration::ZERO).await?;
        io.commit(tx).await?;
        let committed = Instant::now();
        let sample = took.len();
        until("the job is picked up", || async { Ok(PICKED_UP.lock().expect("nobody panics").len() > sample) }).await?;
        let at = PICKED_UP.lock().expect("nobody panics")[sample];
        took.push(at.saturating_duration_since(committed));
    }
    Ok(took)
}

fn percentiles(took: &mut [Duration]) -> (Duration, Duration) {
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

/// Returns how long an idle worker takes from the commit of a job to its handler's first line: (p50, p99).
pub(crate) async fn pickup(database_url: &str, samples: usize) -> anyhow::Result<(Duration, Duration)> {
    let worker = Worker::start(App::new("bench", &EXPAND).job_tx::<NoopTx>(), &backends(database_url, NOWHERE)?)?;
    // Another process's transactions: what they wake comes by NOTIFY.
    let producer = idle(database_url)?;
    let mut took = sampled(&producer, Duration::from_millis(15), |taken| taken < samples).await?;
    producer.stop(GRACE).await?;
    worker.stop(GRACE).await?;
    Ok(percentiles(&mut took))
}
