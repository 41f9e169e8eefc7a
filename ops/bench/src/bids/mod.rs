//! Bids: a released service under load over gRPC, beside pgbench running the naive transaction on the same server.
pub(crate) mod client;
pub(crate) mod load;
mod pgbench;
pub(crate) mod service;

use crate::{
    extent, fresh, ours,
    report::{Row, above, at_most, below, beside, median},
};
use load::{Lots, START_MINOR, Tally, percentile};
use pgbench::Naive;
use service::{Process, Releases};
use sqlx::PgPool;
use std::time::Duration;

pub(crate) const WARM_UP: Duration = Duration::from_secs(2);
pub(crate) const TIME: Duration = Duration::from_secs(8);
/// Of each cell of the growth table.
const CELL: Duration = Duration::from_secs(4);
/// Baseline clients.
const NAIVE_CLIENTS: u32 = 32;

/// Where things are.
pub(crate) struct Bench<'a> {
    pub(crate) base: &'a str,
    pub(crate) out: &'a str,
    pub(crate) releases: Releases,
}

/// One figure of ours and its baseline's, for one number of items.
#[derive(Default)]
struct Sample {
    ours: Vec<f64>,
    share: Vec<f64>,
    naive: Vec<f64>,
}

pub(crate) async fn run(bench: &Bench<'_>, rounds: usize, only: Option<&str>) -> anyhow::Result<Vec<Row>> {
    if let Some((items, clients)) = only.and_then(|only| only.split_once('x')) {
        return cell(bench, items.parse()?, clients.parse()?).await;
    }
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if wanted("rounds") {
        rows.extend(compare(bench, rounds).await?);
    }
    if wanted("growth") {
        rows.extend(growth(bench).await?);
    }
    Ok(rows)
}

impl Bench<'_> {
    pub(crate) fn url(&self) -> String {
        format!("{}/bench_bids", self.base)
    }

    /// A migrated database with so many items.
    pub(crate) async fn stage(&self, items: u32) -> anyhow::Result<PgPool> {
        let pool = fresh(self.base, "bench_bids").await?;
        ours::migrate(&self.url()).await?;
        sqlx::query(
            "INSERT INTO items (item_id, seller_id, title, currency, start_price_minor, ladder_version, starts_at, ends_at)
             SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'sam', 'A lot', 'EUR', $2, 1,
                    now() - interval '1 hour', now() + interval '1 day'
             FROM generate_series(1, $1) n",
        )
        .bind(i32::try_from(items)?)
        .bind(START_MINOR)
        .execute(&pool)
        .await?;
        for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
            sqlx::query(statement).execute(&pool).await?;
        }
        Ok(pool)
    }

    pub(crate) async fn service(&self) -> anyhow::Result<Process> {
        let url = self.url();
        let variables =
            [("DATABASE_URL", url.as_str()), ("AMQP_URL", "amqp://127.0.0.1:1"), ("REDIS_URL", "redis://127.0.0.1:1")];
        self.releases.start("bid-service", &[], &variables).await
    }

    /// Clients that each wait for their answer.
    pub(crate) async fn closed(&self, items: u32, clients: usize, time: Duration) -> anyhow::Result<(Tally, Process)> {
        self.stage(items).await?.close().await;
        let service = self.service().await?;
        let clients = load::connect(&self.releases, &service.address, clients).await?;
        Ok((load::closed(clients, &Lots::new(items), extent::time(WARM_UP), time).await?, service))
    }

    async fn naive(&self, items: u32, clients: u32) -> anyhow::Result<Naive> {
        self.stage(items).await?.close().await;
        pgbench::run(&self.url(), self.out, items, clients, u32::try_from(extent::time(TIME).as_secs().max(1))?)
    }
}

async fn compare(bench: &Bench<'_>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let (mut one, mut many) = (Sample::default(), Sample::default());
    let (mut alone, mut alone_naive, mut memory) = (Vec::new(), Vec::new(), (0.0, 0.0));
    for number in 1..=rounds {
        eprintln!("  … round {number} of {rounds}");
        for (items, sample) in [(1, &mut one), (10_000, &mut many)] {
            let (tally, service) = bench.closed(items, 64, extent::time(TIME)).await?;
            sample.ours.push(tally.accepted_per_second());
            sample.share.push(100.0 * tally.accepted_per_second() / tally.decided_per_second());
            memory.1 = service.memory()?.1.max(memory.1);
            drop(service);
            sample.naive.push(bench.naive(items, NAIVE_CLIENTS).await?.per_second);
        }
        let (tally, service) = bench.closed(1, 1, extent::time(TIME)).await?;
        let count = f64::from(u32::try_from(tally.decided_ms.len())?);
        alone.push(tally.decided_ms.iter().sum::<f64>() / count);
        drop(service);
        alone_naive.push(bench.naive(1, 1).await?.latency_ms);
    }
    let idle = bench.service().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    memory.0 = idle.memory()?.0;
    let naive = |n: f64| ("pgbench, naive transaction, 32 clients", n);
    Ok(vec![
        beside("bids accepted, 1 item, 64 clients", "bids/s", median(one.ours), naive(median(one.naive)), 8.0),
        above("accepted of those decided, 1 item, 64 clients", "%", median(one.share), 0.0),
        beside("bids accepted, 10000 items, 64 clients", "bids/s", median(many.ours), naive(median(many.naive)), 2.0),
        at_most(
            "one client, one bid at a time, mean",
            "ms",
            median(alone),
            ("pgbench, 1 client", median(alone_naive)),
            1.5,
        ),
        below("memory of an idle service", "MiB", memory.0, 40.0),
        below("memory of the service at most, 64 clients", "MiB", memory.1, f64::INFINITY),
    ])
}

async fn growth(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for items in extent::some(&[1, 10, 1_000, 100_000]) {
        for clients in extent::some(&[1, 8, 64, 256]) {
            rows.extend(cell(bench, *items, *clients).await?);
        }
    }
    Ok(rows)
}

/// Of the growth table: so many items, so many clients.
async fn cell(bench: &Bench<'_>, items: u32, clients: usize) -> anyhow::Result<Vec<Row>> {
    eprintln!("  … {items} item(s), {clients} client(s)");
    let (tally, service) = bench.closed(items, clients, extent::time(CELL)).await?;
    let work = format!("{items} items, {clients} clients");
    Ok(vec![
        above(&format!("bids accepted, {work}"), "bids/s", tally.accepted_per_second(), 0.0),
        above(&format!("bids decided, {work}"), "bids/s", tally.decided_per_second(), 0.0),
        below(&format!("p50, {work}"), "ms", percentile(&tally.decided_ms, 50), f64::INFINITY),
        below(&format!("p99, {work}"), "ms", percentile(&tally.decided_ms, 99), f64::INFINITY),
        below(&format!("memory at most, {work}"), "MiB", service.memory()?.1, f64::INFINITY),
    ])
}
