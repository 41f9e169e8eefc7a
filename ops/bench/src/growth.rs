//! How it grows: with the backlog, with workers, with time under an old snapshot; and how much memory it takes.
use crate::{
    extent, fresh, ours,
    report::{Row, below, beside, median},
};
use anyhow::Context;
use sqlx::{Connection, Executor, PgConnection};
use std::{
    env, fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Backlogs, the first of which the others are compared with.
const BACKLOGS: [u32; 3] = [10_000, 100_000, 1_000_000];
/// Jobs where their number is not what is asked.
const JOBS: u32 = 100_000;
/// Times each is measured: they are long.
const TIMES: usize = 3;
/// Time for which a snapshot is held open while jobs come and go.
const HELD: Duration = Duration::from_mins(1);
/// Jobs a second meanwhile.
const LOAD: u64 = 4_000;
const SETTLE: Duration = Duration::from_secs(3);

fn jobs() -> u64 {
    extent::count(JOBS).into()
}

async fn drained(base: &str, leased: bool, backlog: u64, workers: usize) -> anyhow::Result<f64> {
    let pool = fresh(base, "bench").await?;
    ours::EXPAND.run(&pool).await?;
    let (measured, _) = ours::drain(&format!("{base}/bench"), &pool, leased, backlog, workers).await?;
    pool.close().await;
    Ok(measured.per_second())
}

/// Throughput at each backlog.
pub(crate) async fn backlogs(base: &str) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (leased, name) in [(false, "Tx"), (true, "leased")] {
        let mut smallest = None;
        for backlog in extent::some(&BACKLOGS).iter().map(|full| extent::count(*full)) {
            let mut figures = Vec::new();
            for _ in 0..extent::some(&[(); TIMES]).len() {
                figures.push(drained(base, leased, backlog.into(), 1).await?);
            }
            let figure = median(figures);
            let first = *smallest.get_or_insert(figure);
            let (work, beside_name) =
                (format!("no-op {name} jobs, backlog {backlog}"), format!("backlog {}", BACKLOGS[0]));
            rows.push(beside(&work, "jobs/s", figure, (&beside_name, first), 0.8));
        }
    }
    Ok(rows)
}

/// Two workers beside one; here they share the machine with each other and with PostgreSQL.
pub(crate) async fn workers(base: &str) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (leased, name) in [(false, "Tx"), (true, "leased")] {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        for _ in 0..extent::some(&[(); TIMES]).len() {
            one.push(drained(base, leased, jobs(), 1).await?);
            two.push(drained(base, leased, jobs(), 2).await?);
        }
        let work = format!("no-op {name} jobs, two workers");
        rows.push(beside(&work, "jobs/s", median(two), ("one worker", median(one)), 0.0));
    }
    Ok(rows)
}

/// Pickup when idle; then under load while a transaction holds its snapshot; then a backlog with all of that still dead
/// in the tables.
pub(crate) async fn snapshot(base: &str) -> anyhow::Result<Vec<Row>> {
    let usual = drained(base, false, jobs(), 1).await?;
    let (url, pool) = (format!("{base}/bench"), fresh(base, "bench").await?);
    ours::EXPAND.run(&pool).await?;
    let idle = ours::pickup(&url, extent::count(500) as usize).await?;
    let mut holder = PgConnection::connect(&url).await?;
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM mq_msgs").await?;
    let loaded = ours::pickup_under_load(&url, LOAD, extent::time(HELD)).await?;
    let (after, _) = ours::drain(&url, &pool, false, jobs(), 1).await?;
    holder.execute("COMMIT").await?;
    pool.close().await;
    let ms = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    let held = format!("snapshot held {} s at {LOAD} jobs/s", extent::time(HELD).as_secs());
    Ok(vec![
        below("pickup when idle, p50", "ms", ms(idle.0), 5.0),
        below("pickup when idle, p99", "ms", ms(idle.1), 25.0),
        below(&format!("pickup, {held}, p50"), "ms", ms(loaded.0), 5.0),
        below(&format!("pickup, {held}, p99"), "ms", ms(loaded.1), 25.0),
        beside(
            "no-op Tx jobs, backlog 100000, snapshot still held",
            "jobs/s",
            after.per_second(),
            ("none held", usual),
            0.5,
        ),
    ])
}

/// A worker in a process of its own.
struct Worker(Child);

impl Worker {
    fn start(url: &str) -> anyhow::Result<Self> {
        let program = env::current_exe()?;
        Ok(Self(Command::new(program).args(["worker", url]).stdin(Stdio::piped()).spawn()?))
    }

    /// A line of its status, in MiB.
    fn status(&self, name: &str) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1_024.0)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Resident memory of a worker that waits, and the most that it took for a backlog.
pub(crate) async fn memory(base: &str) -> anyhow::Result<Vec<Row>> {
    let (url, pool) = (format!("{base}/bench"), fresh(base, "bench").await?);
    ours::EXPAND.run(&pool).await?;
    let worker = Worker::start(&url)?;
    tokio::time::sleep(extent::time(SETTLE)).await;
    let idle = worker.status("VmRSS")?;
    for leased in [false, true] {
        ours::enqueue(&url, leased, jobs(), 10_000).await?;
    }
    let began = Instant::now();
    while ours::left(&pool).await? > 0 {
        anyhow::ensure!(began.elapsed() < HELD, "the worker does not drain");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let peak = worker.status("VmHWM")?;
    drop(worker);
    pool.close().await;
    Ok(vec![
        below("memory of an idle worker", "MiB", idle, 40.0),
        below("memory at most, draining 100000 of each kind", "MiB", peak, f64::INFINITY),
    ])
}
