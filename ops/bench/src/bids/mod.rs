//! Bids: a released service under load over gRPC, beside pgbench running the naive transaction on the same server.
pub(crate) mod client;
pub(crate) mod load;
mod pgbench;
pub(crate) mod service;

use crate::{
    extent, fresh, ours,
    report::{Row, above, at_most, below, beside, median},
};
use anyhow::Context;
use load::{Lots, START_MINOR, Tally, percentile};
use pgbench::Naive;
use service::{Process, Releases};
use sqlx::PgPool;
use std::time::Duration;

const WARM_UP: Duration = Duration::from_secs(2);
const TIME: Duration = Duration::from_secs(8);
/// Of each cell of the growth table.
const CELL: Duration = Duration::from_secs(4);
/// Bids of the open load come over so few connections: many more would cost the generator, on the same machine, what is
/// measured.
const OPEN_CONNECTIONS: usize = 16;
const OVERLOADED_ITEMS: u32 = 10_000;
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
    if wanted("overload") {
        rows.extend(overload(bench, rounds).await?);
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

    async fn service(&self) -> anyhow::Result<Process> {
        let url = self.url();
        let variables =
            [("DATABASE_URL", url.as_str()), ("AMQP_URL", "amqp://127.0.0.1:1"), ("REDIS_URL", "redis://127.0.0.1:1")];
        self.releases.start("bid-service", &[], &variables).await
    }

    async fn closed(&self, items: u32, clients: usize, time: Duration) -> anyhow::Result<(Tally, Process)> {
        self.stage(items).await?.close().await;
        let service = self.service().await?;
        let clients = load::connect(&self.releases, &service.address, clients).await?;
        Ok((load::closed(clients, &Lots::new(items), extent::time(WARM_UP), time).await?, service))
    }

    /// So many bids a second, and the service's memory at most.
    async fn open(&self, per_second: f64) -> anyhow::Result<(Tally, f64)> {
        self.stage(extent::count(OVERLOADED_ITEMS)).await?.close().await;
        let service = self.service().await?;
        let clients = load::connect(&self.releases, &service.address, OPEN_CONNECTIONS).await?;
        let tally = load::open(
            clients,
            &Lots::new(extent::count(OVERLOADED_ITEMS)),
            per_second,
            extent::time(WARM_UP),
            extent::time(TIME),
        )
        .await?;
        Ok((tally, service.memory()?.1))
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

/// The peak of clients that each wait for their answer, and then twice as many bids as that. What is accepted of those
/// may be more: an open load's calls share writes. Then that is a peak as well, and twice as many as that are sent,
/// until no more are accepted.
///
/// The load comes from the same processors, and twice as much of it takes more of them: so the goodput is also given
/// for each second of the processors' time that the load left.
async fn overload(bench: &Bench<'_>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let (mut ratios, mut strict, mut left) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = None;
    for number in 1..=rounds {
        let (closed, service) = bench.closed(extent::count(OVERLOADED_ITEMS), 256, extent::time(TIME)).await?;
        drop(service);
        let (mut peak, mut first) = (closed.clone(), None);
        loop {
            let per_second = peak.accepted_per_second();
            eprintln!("  … round {number} of {rounds}: peak {per_second:.0} bids/s; now twice as many are sent");
            let (tally, memory) = bench.open(2.0 * per_second).await?;
            let ratio = tally.accepted_per_second() / per_second;
            let (at_first, _, _) = first.get_or_insert((ratio, tally.clone(), memory));
            if ratio <= 1.05 {
                ratios.push(*at_first);
                strict.push(ratio);
                left.push(ratio * peak.processors_left() / tally.processors_left());
                break;
            }
            peak = tally;
        }
        let (closed, peak) = (closed.accepted_per_second(), peak.accepted_per_second());
        last = first.map(|(_, tally, memory)| (tally, memory, closed, peak));
    }
    let (tally, memory, closed, peak) = last.context("no round was asked for")?;
    let work = "open load at twice the peak";
    let goodput = |ratios, peak: f64, of: &str, goal| {
        let ratio = median(ratios);
        beside(&format!("goodput, {work} of {of}"), "bids/s", ratio * peak, (of, peak), goal)
    };
    Ok(vec![
        goodput(ratios, closed, "256 clients that wait", 0.9),
        goodput(strict, peak, "an open load", 0.0),
        goodput(left, peak, "an open load, by what the load leaves of the processors", 0.0),
        above(
            &format!("rejected, {work}"),
            "bids/s",
            f64::from(tally.rejected) / extent::time(TIME).as_secs_f64(),
            0.0,
        ),
        below(&format!("p50 of being rejected, {work}"), "ms", percentile(&tally.rejected_ms, 50), f64::INFINITY),
        below(&format!("p99 of being rejected, {work}"), "ms", percentile(&tally.rejected_ms, 99), f64::INFINITY),
        below(&format!("p99 of a decision, {work}"), "ms", percentile(&tally.decided_ms, 99), f64::INFINITY),
        below(&format!("memory of the service at most, {work}"), "MiB", memory, f64::INFINITY),
    ])
}
