//! What is measured several times, each time beside its baselines, and of which the median counts.
use crate::{
    Measured, baselines, fresh, ours,
    report::{Row, below, beside, median},
};

/// The stock runner is far slower, and its time per job grows with the backlog: a smaller one flatters it.
const SQLXMQ_JOBS: u64 = 20_000;
const ONE_BY_ONE: u64 = 2_000;
const BULK: u64 = 50_000;
const BULK_BATCH: u64 = 1_000;

/// sqlxmq, graphile-worker, pg-boss.
const OTHERS: [&str; 3] = ["sqlxmq", "graphile-worker", "pg-boss"];
/// What each goal of a no-op job is: against each of them for `Tx` jobs, and for leased ones.
const DRAIN_GOALS: [(f64, f64); 3] = [(6.0, 6.0), (2.0, 1.3), (1.0, 1.0)];

#[derive(Default)]
pub(crate) struct Samples {
    tx: Vec<f64>,
    leased: Vec<f64>,
    wal: [Vec<f64>; 2],
    one: Vec<f64>,
    bulk: Vec<f64>,
    others: [Other; 3],
}

/// A baseline's figures.
#[derive(Default)]
struct Other {
    drain: Vec<f64>,
    one: Vec<f64>,
    bulk: Vec<f64>,
}

impl Other {
    fn push(&mut self, drain: Measured, one: Measured, bulk: Measured) {
        self.drain.push(drain.per_second());
        self.one.push(one.per_second());
        self.bulk.push(bulk.per_second());
    }
}

pub(crate) async fn round(samples: &mut Samples, base: &str, node: &str, backlog: u64) -> anyhow::Result<()> {
    let url = format!("{base}/bench");
    let pool = fresh(base, "bench").await?;
    ours::EXPAND.run(&pool).await?;
    let (tx, wal) = ours::drain(&url, &pool, false, backlog, 1).await?;
    samples.tx.push(tx.per_second());
    samples.wal[0].push(wal);
    let (leased, wal) = ours::drain(&url, &pool, true, backlog, 1).await?;
    samples.leased.push(leased.per_second());
    samples.wal[1].push(wal);
    samples.one.push(ours::enqueue(&url, false, ONE_BY_ONE, 1).await?.per_second());
    samples.bulk.push(ours::enqueue(&url, false, BULK, BULK_BATCH).await?.per_second());
    pool.close().await;

    let url = format!("{base}/bench_sqlxmq");
    let stock = fresh(base, "bench_sqlxmq").await?;
    baselines::sqlxmq_schema(&stock).await?;
    samples.others[0].push(
        baselines::sqlxmq_drain(&url, SQLXMQ_JOBS).await?,
        baselines::sqlxmq_enqueue(&stock, ONE_BY_ONE, 1).await?,
        baselines::sqlxmq_enqueue(&stock, BULK / 5, BULK_BATCH).await?,
    );
    stock.close().await;
    for (other, script) in samples.others[1..].iter_mut().zip(["graphile.mjs", "pgboss.mjs"]) {
        let url = format!("{base}/bench_node");
        fresh(base, "bench_node").await?.close().await;
        let run = |arguments: &[&str]| baselines::node(node, script, arguments);
        other.push(
            run(&["drain", &url, &backlog.to_string()])?,
            run(&["enqueue", &url, &ONE_BY_ONE.to_string(), "1"])?,
            run(&["enqueue", &url, &BULK.to_string(), &BULK_BATCH.to_string()])?,
        );
    }
    Ok(())
}

impl Samples {
    pub(crate) fn report(self, backlog: u64) -> Vec<Row> {
        let (tx, leased, one, bulk) = (median(self.tx), median(self.leased), median(self.one), median(self.bulk));
        let [tx_wal, leased_wal] = self.wal.map(median);
        let mut rows = Vec::new();
        let (mut ones, mut bulks) = (Vec::new(), Vec::new());
        for ((other, name), (tx_goal, leased_goal)) in self.others.into_iter().zip(OTHERS).zip(DRAIN_GOALS) {
            let drain = median(other.drain);
            let named = if name == "sqlxmq" { format!("{name} (backlog {SQLXMQ_JOBS})") } else { name.to_owned() };
            let work = |kind: &str| format!("no-op {kind} jobs, backlog {backlog}");
            rows.push(beside(&work("Tx"), "jobs/s", tx, (&named, drain), tx_goal));
            rows.push(beside(&work("leased"), "jobs/s", leased, (&named, drain), leased_goal));
            ones.push(beside("enqueue, a transaction each", "jobs/s", one, (name, median(other.one)), 1.0));
            bulks.push(beside("enqueue, 1000 to a transaction", "jobs/s", bulk, (name, median(other.bulk)), 1.0));
        }
        rows.push(below("WAL per Tx job, claim to done", "bytes", tx_wal, 1_024.0));
        rows.push(below("WAL per leased job, claim to done", "bytes", leased_wal, 1_024.0));
        rows.extend(ones);
        rows.extend(bulks);
        rows
    }
}
