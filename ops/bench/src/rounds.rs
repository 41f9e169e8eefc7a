//! What is measured several times, each time beside its baselines, and of which the median counts.
use crate::{
    Measured,
    baselines::{self, Peer},
    extent, fresh, ours,
    report::{Row, below, beside, median},
};

/// The stock runner is far slower, and its time per job grows with the backlog: a smaller one flatters it.
const SQLXMQ_JOBS: u32 = 20_000;
const ONE_BY_ONE: u32 = 2_000;
const BULK: u32 = 50_000;
const BULK_BATCH: u64 = 1_000;

const SQLXMQ: &str = "sqlxmq";

/// Returns what a no-op job's rate must be, of a peer's: for `Tx` jobs, and for leased ones.
fn drain_goals(peer: &str) -> (f64, f64) {
    match peer {
        SQLXMQ => (6.0, 6.0),
        "graphile-worker" => (2.0, 1.3),
        _ => (1.0, 1.0),
    }
}

#[derive(Default)]
pub(crate) struct Samples {
    tx: Vec<f64>,
    leased: Vec<f64>,
    wal: [Vec<f64>; 2],
    one: Vec<f64>,
    bulk: Vec<f64>,
    /// In the order in which they were measured.
    others: Vec<Other>,
}

/// A baseline's figures.
struct Other {
    name: &'static str,
    drain: Vec<f64>,
    one: Vec<f64>,
    bulk: Vec<f64>,
}

impl Samples {
    fn push(&mut self, name: &'static str, drain: Measured, one: Measured, bulk: Measured) {
        let place = self.others.iter().position(|other| other.name == name).unwrap_or_else(|| {
            self.others.push(Other { name, drain: Vec::new(), one: Vec::new(), bulk: Vec::new() });
            self.others.len() - 1
        });
        let other = &mut self.others[place];
        other.drain.push(drain.per_second());
        other.one.push(one.per_second());
        other.bulk.push(bulk.per_second());
    }
}

fn counted(full: u32) -> u64 {
    extent::count(full).into()
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
    samples.one.push(ours::enqueue(&url, false, counted(ONE_BY_ONE), 1).await?.per_second());
    samples.bulk.push(ours::enqueue(&url, false, counted(BULK), BULK_BATCH).await?.per_second());
    pool.close().await;

    let url = format!("{base}/bench_sqlxmq");
    let stock = fresh(base, "bench_sqlxmq").await?;
    baselines::sqlxmq_schema(&stock).await?;
    samples.push(
        SQLXMQ,
        baselines::sqlxmq_drain(&url, counted(SQLXMQ_JOBS)).await?,
        baselines::sqlxmq_enqueue(&stock, counted(ONE_BY_ONE), 1).await?,
        baselines::sqlxmq_enqueue(&stock, counted(BULK / 5), BULK_BATCH).await?,
    );
    stock.close().await;
    for peer in Peer::all(node) {
        let url = format!("{base}/bench_peer");
        fresh(base, "bench_peer").await?.close().await;
        samples.push(
            peer.name,
            peer.run(&["drain", &url, &backlog.to_string()])?,
            peer.run(&["enqueue", &url, &counted(ONE_BY_ONE).to_string(), "1"])?,
            peer.run(&["enqueue", &url, &counted(BULK).to_string(), &BULK_BATCH.to_string()])?,
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
        for other in self.others {
            let (name, drain, (tx_goal, leased_goal)) = (other.name, median(other.drain), drain_goals(other.name));
            let named = if name == SQLXMQ { format!("{name} (backlog {SQLXMQ_JOBS})") } else { name.to_owned() };
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
