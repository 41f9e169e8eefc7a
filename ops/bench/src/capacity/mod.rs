//! What a bid costs, all of it: the call, its transaction, its event and whoever applies that. From what it costs at one
//! load follows what another takes, which is then tried.
mod parties;

use crate::{
    bids::{
        Bench,
        load::{self, Lots},
    },
    events::variable,
    extent,
    report::{Row, above, at_most, below, beside, median},
};
use anyhow::Context;
use parties::{Parties, Spent};
use sqlx::PgPool;
use std::time::{Duration, Instant};

const ITEMS: u32 = 1_000;
/// Bids a second from which the costs are taken,
const MEASURED_AT: f64 = 300.0;
/// and for which they foretell what is spent.
const FORETOLD_AT: f64 = 600.0;
/// So few connections take the generator least.
const CONNECTIONS: usize = 16;
const WARM_UP: Duration = Duration::from_secs(4);
const TIME: Duration = Duration::from_secs(15);
/// What was foretold may be so many times what is spent, or be exceeded by as much.
const WITHIN: f64 = 1.25;
/// Events are published and applied by then.
const QUIET_WITHIN: Duration = Duration::from_mins(1);

/// What was spent in a time, and how many bids for it.
#[derive(Debug, Clone, Default)]
struct Load {
    bids: f64,
    seconds: f64,
    spent: Spent,
    wal_bytes: f64,
    disk_bytes: f64,
    events: f64,
}

impl Load {
    fn processors(&self) -> f64 {
        self.spent.all() / self.seconds
    }
}

pub(crate) async fn run(bench: &Bench<'_>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let (mut idle, mut measured, mut tried) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=rounds {
        eprintln!("  … round {number} of {rounds}");
        idle.push(under(bench, 0.0).await?);
        measured.push(under(bench, MEASURED_AT).await?);
        tried.push(under(bench, FORETOLD_AT).await?);
    }
    let of = |loads: &[Load], figure: &dyn Fn(&Load) -> f64| median(loads.iter().map(figure).collect());
    // A party's own, beyond what it takes to be there.
    let cost = |party: usize| {
        let at_rest = of(&idle, &|load| load.spent.of(party) / load.seconds);
        of(&measured, &|load| (load.spent.of(party) - at_rest * load.seconds) / load.bids)
    };
    let mut rows = Vec::new();
    for (party, name) in parties::NAMES.iter().enumerate() {
        let work = format!("processor time per bid, {name}");
        rows.push(below(&work, "ms", 1_000.0 * cost(party), f64::INFINITY));
    }
    rows.extend([
        below("log of writes per bid", "bytes", of(&measured, &|load| load.wal_bytes / load.bids), f64::INFINITY),
        below("disk per bid", "bytes", of(&measured, &|load| load.disk_bytes / load.bids), f64::INFINITY),
        above("events per bid", "events", of(&measured, &|load| load.events / load.bids), 0.0),
        below("processors while nobody bids", "processors", of(&idle, &Load::processors), f64::INFINITY),
    ]);
    let rate = of(&tried, &|load| load.bids / load.seconds);
    let at_rest = of(&idle, &Load::processors);
    let foretold = at_rest + rate * (0..parties::NAMES.len()).map(cost).sum::<f64>();
    let spent = of(&tried, &Load::processors);
    let work = format!("processors at {FORETOLD_AT} bids/s, foretold from {MEASURED_AT}");
    rows.push(at_most(&work, "processors", foretold, ("spent", spent), WITHIN));
    let work = format!("log of writes at {FORETOLD_AT} bids/s, foretold from {MEASURED_AT}");
    let wal = |loads: &[Load], figure: &dyn Fn(&Load) -> f64| of(loads, &|load| load.wal_bytes / figure(load));
    let foretold = rate * wal(&measured, &|load| load.bids);
    rows.push(beside(&work, "bytes/s", foretold, ("written", wal(&tried, &|load| load.seconds)), 1.0 / WITHIN));
    Ok(rows)
}

/// So many bids a second on a new database, with a service and a worker, until every event of them is applied.
async fn under(bench: &Bench<'_>, per_second: f64) -> anyhow::Result<Load> {
    let items = extent::count(ITEMS);
    let pool = bench.stage(items).await?;
    let (url, amqp, redis) = (bench.url(), variable("AMQP_URL")?, variable("REDIS_URL")?);
    let variables = [("DATABASE_URL", url.as_str()), ("AMQP_URL", &amqp), ("REDIS_URL", &redis)];
    let service = bench.releases.start("bid-service", &[], &variables).await?;
    let worker = bench.releases.start("bid-worker", &[], &variables).await?;
    let parties = Parties::find(&pool, [&service, &worker]).await?;
    let clients = load::connect(&bench.releases, &service.address, CONNECTIONS).await?;
    let (warm_up, time) = (extent::time(WARM_UP), extent::time(TIME));
    let lots = Lots::new(items);
    let bids_for = async |time: Duration| {
        if per_second == 0.0 {
            tokio::time::sleep(time).await;
            return Ok(());
        }
        load::open(clients.clone(), &lots, per_second, Duration::ZERO, time).await?;
        quiet(&pool).await
    };
    bids_for(warm_up).await?;
    let (before, began) = (Seen::now(&pool, &parties).await?, Instant::now());
    bids_for(time).await?;
    let (seconds, after) = (began.elapsed().as_secs_f64(), Seen::now(&pool, &parties).await?);
    pool.close().await;
    Ok(after.since(&before, seconds))
}

/// Waits until every event is published.
async fn quiet(pool: &PgPool) -> anyhow::Result<()> {
    let until = Instant::now() + QUIET_WITHIN;
    loop {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(pool).await?;
        if left == 0 {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < until, "{left} events are not published");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What counts, at one moment.
struct Seen {
    spent: Spent,
    wal_bytes: f64,
    disk_bytes: f64,
    events: f64,
    bids: f64,
}

impl Seen {
    async fn now(pool: &PgPool, parties: &Parties<'_>) -> anyhow::Result<Self> {
        let (wal_bytes, disk_bytes, events, bids) = sqlx::query_as(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8,
                    pg_database_size(current_database())::float8,
                    coalesce((SELECT last_value FROM pg_sequences WHERE sequencename = 'outbox_outbox_id_seq'), 0)::float8,
                    (SELECT count(*) FROM bids)::float8",
        )
        .fetch_one(pool)
        .await
        .context("what a bid leaves behind")?;
        Ok(Self { spent: parties.spent()?, wal_bytes, disk_bytes, events, bids })
    }

    fn since(&self, before: &Self, seconds: f64) -> Load {
        Load {
            bids: self.bids - before.bids,
            seconds,
            spent: self.spent.since(&before.spent),
            wal_bytes: self.wal_bytes - before.wal_bytes,
            disk_bytes: self.disk_bytes - before.disk_bytes,
            events: self.events - before.events,
        }
    }
}
