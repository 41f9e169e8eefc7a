//! Measures jobs beside their baselines, in one run on one PostgreSQL. Started by `cargo xtask bench jobs`.

mod baselines;
mod ours;

use anyhow::Context;
use serde::Serialize;
use sqlx::{Connection, Executor, PgConnection, postgres::PgPoolOptions};
use std::{fmt::Write, fs, future::Future, time::Duration};

/// So much work in so much time.
#[derive(Debug, Clone, Copy)]
struct Measured {
    jobs: u64,
    took: Duration,
}

impl Measured {
    fn per_second(self) -> f64 {
        f64::from(u32::try_from(self.jobs).unwrap_or(u32::MAX)) / self.took.as_secs_f64()
    }
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Row {
    work: String,
    ours: f64,
    unit: &'static str,
    baseline_name: &'static str,
    baseline: Option<f64>,
    ratio: Option<f64>,
    goal: String,
    met: bool,
}

const ROUNDS: usize = 5;
/// The stock runner is far slower, and its time per job grows with the backlog: a smaller one flatters it.
const SQLXMQ_JOBS: u64 = 20_000;
const ONE_BY_ONE: u64 = 2_000;
const BULK: u64 = 50_000;
const BULK_BATCH: u64 = 1_000;

async fn poll_until<F: Future<Output = anyhow::Result<bool>>>(mut done: impl FnMut() -> F) -> anyhow::Result<()> {
    while !done().await? {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn beside(work: &str, unit: &'static str, ours: f64, (name, baseline): (&'static str, f64), goal: f64) -> Row {
    let ratio = ours / baseline;
    let goal_text = format!("≥ {goal} ×");
    Row {
        work: work.to_owned(),
        ours,
        unit,
        baseline_name: name,
        baseline: Some(baseline),
        ratio: Some(ratio),
        goal: goal_text,
        met: ratio >= goal,
    }
}

fn below(work: &str, unit: &'static str, ours: f64, limit: f64) -> Row {
    Row {
        work: work.to_owned(),
        ours,
        unit,
        baseline_name: "–",
        baseline: None,
        ratio: None,
        goal: format!("< {limit}"),
        met: ours < limit,
    }
}

#[derive(Default)]
struct Samples {
    tx: Vec<f64>,
    leased: Vec<f64>,
    sqlxmq: Vec<f64>,
    graphile: Vec<f64>,
    wal: [Vec<f64>; 2],
    one: [Vec<f64>; 3],
    bulk: [Vec<f64>; 3],
}

async fn round(samples: &mut Samples, base: &str, node: &str, backlog: u64) -> anyhow::Result<()> {
    let (ours_url, stock_url, node_url) =
        (format!("{base}/bench"), format!("{base}/bench_sqlxmq"), format!("{base}/bench_node"));
    let pool = fresh(base, "bench").await?;
    ours::EXPAND.run(&pool).await?;
    let (tx, wal) = ours::drain(&ours_url, &pool, false, backlog).await?;
    samples.tx.push(tx.per_second());
    samples.wal[0].push(wal);
    let (leased, wal) = ours::drain(&ours_url, &pool, true, backlog).await?;
    samples.leased.push(leased.per_second());
    samples.wal[1].push(wal);
    samples.one[0].push(ours::enqueue(&ours_url, false, ONE_BY_ONE, 1).await?.per_second());
    samples.bulk[0].push(ours::enqueue(&ours_url, false, BULK, BULK_BATCH).await?.per_second());
    let stock = fresh(base, "bench_sqlxmq").await?;
    baselines::sqlxmq_schema(&stock).await?;
    samples.sqlxmq.push(baselines::sqlxmq_drain(&stock_url, SQLXMQ_JOBS).await?.per_second());
    samples.one[1].push(baselines::sqlxmq_enqueue(&stock, ONE_BY_ONE, 1).await?.per_second());
    samples.bulk[1].push(baselines::sqlxmq_enqueue(&stock, BULK / 5, BULK_BATCH).await?.per_second());
    fresh(base, "bench_node").await?;
    let (count, one, bulk) = (backlog.to_string(), ONE_BY_ONE.to_string(), BULK.to_string());
    let graphile = |arguments: &[&str]| baselines::graphile(node, arguments);
    samples.graphile.push(graphile(&["drain", &node_url, &count])?.per_second());
    samples.one[2].push(graphile(&["enqueue", &node_url, &one, "1"])?.per_second());
    samples.bulk[2].push(graphile(&["enqueue", &node_url, &bulk, &BULK_BATCH.to_string()])?.per_second());
    Ok(())
}

async fn fresh(base: &str, name: &str) -> anyhow::Result<sqlx::PgPool> {
    let mut admin = PgConnection::connect(&format!("{base}/postgres")).await?;
    admin.execute(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)").as_str()).await?;
    admin.execute(format!("CREATE DATABASE {name}").as_str()).await?;
    Ok(PgPoolOptions::new().max_connections(4).connect(&format!("{base}/{name}")).await?)
}

fn report(samples: Samples, pickup: (Duration, Duration), backlog: u64) -> Vec<Row> {
    let [tx, leased, stock, node] = [samples.tx, samples.leased, samples.sqlxmq, samples.graphile].map(median);
    let [tx_wal, leased_wal] = samples.wal.map(median);
    let [one, one_stock, one_node] = samples.one.map(median);
    let [bulk, bulk_stock, bulk_node] = samples.bulk.map(median);
    let ms = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    let (unit, name) = ("jobs/s", |kind: &str| format!("no-op {kind} jobs, backlog {backlog}"));
    vec![
        beside(&name("Tx"), unit, tx, ("graphile-worker", node), 2.0),
        beside(&name("Tx"), unit, tx, ("sqlxmq (backlog 20000)", stock), 6.0),
        beside(&name("leased"), unit, leased, ("graphile-worker", node), 1.3),
        beside(&name("leased"), unit, leased, ("sqlxmq (backlog 20000)", stock), 6.0),
        below("WAL per Tx job, claim to done", "bytes", tx_wal, 1_024.0),
        below("WAL per leased job, claim to done", "bytes", leased_wal, 1_024.0),
        beside("enqueue, a transaction each", unit, one, ("sqlxmq", one_stock), 1.0),
        beside("enqueue, a transaction each", unit, one, ("graphile-worker", one_node), 1.0),
        beside("enqueue, 1000 to a transaction", unit, bulk, ("sqlxmq", bulk_stock), 1.0),
        beside("enqueue, 1000 to a transaction", unit, bulk, ("graphile-worker", bulk_node), 1.0),
        below("pickup when idle, p50", "ms", ms(pickup.0), 5.0),
        below("pickup when idle, p99", "ms", ms(pickup.1), 25.0),
    ]
}

fn markdown(rows: &[Row]) -> String {
    let mut text = "| work | ours | unit | baseline | its figure | ratio | goal | met |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n".to_owned();
    for row in rows {
        let figure =
            |figure: Option<f64>, digits: usize| figure.map_or_else(|| "–".to_owned(), |f| format!("{f:.digits$}"));
        let digits = if row.ours < 100.0 { 2 } else { 0 };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.work,
            figure(Some(row.ours), digits),
            row.unit,
            row.baseline_name,
            figure(row.baseline, digits),
            figure(row.ratio, 2),
            row.goal,
            if row.met { "yes" } else { "no" },
        );
    }
    text
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "gavel-bench POSTGRES_URL NODE_DIR OUT_DIR [ROUNDS] [BACKLOG]";
    let (base, node, out) =
        (arguments.next().context(usage)?, arguments.next().context(usage)?, arguments.next().context(usage)?);
    let rounds = arguments.next().map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    let backlog = arguments.next().map_or(Ok(100_000), |backlog| backlog.parse())?;
    let mut samples = Samples::default();
    for number in 1..=rounds {
        eprintln!("  … round {number} of {rounds}");
        round(&mut samples, &base, &node, backlog).await?;
    }
    let pool = fresh(&base, "bench").await?;
    ours::EXPAND.run(&pool).await?;
    let pickup = ours::pickup(&format!("{base}/bench"), 500).await?;
    let rows = report(samples, pickup, backlog);
    let text = markdown(&rows);
    println!("{text}");
    fs::create_dir_all(&out)?;
    fs::write(format!("{out}/jobs.md"), text)?;
    fs::write(format!("{out}/jobs.json"), serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))? + "\n")?;
    Ok(())
}
