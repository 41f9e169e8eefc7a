//! A database that stands still under a load that it could take, and what becomes of bids then and afterwards.
use super::{CONNECTIONS, ITEMS, REJECTED_WITHIN_MS};
use crate::{
    bids::{
        Bench, TIME,
        client::{Client, Reply},
        load::{self, Lots, item_id, percentile},
        service::Stat,
    },
    extent,
    report::{Row, above, at_most, below, beside},
};
use anyhow::{Context, ensure};
use sqlx::PgPool;
use std::{
    cell::RefCell,
    collections::HashSet,
    fs,
    process::Command,
    time::{Duration, Instant},
};

/// Of what clients that wait for their answers get.
const LOAD: f64 = 0.8;
const BEFORE: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(30);
const AFTER: Duration = Duration::from_secs(30);
/// It is over once so many of those are accepted again that were before.
const RECOVERED: f64 = 0.95;
const RECOVERED_WITHIN_S: f64 = 5.0;

/// A bid that was answered; times are of the load, in seconds.
struct Answered {
    placed_s: f64,
    known_s: f64,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Accepted,
    Refused,
    /// At once, because too many wait.
    Rejected,
    /// It was begun, and its time ran out, or its database was gone.
    Failed,
}

/// What was measured.
struct Measured {
    per_second: f64,
    answered: Vec<Answered>,
    /// Bids that were acknowledged, and are not in the ledger.
    lost: usize,
    memory_mib: f64,
}

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let (closed, service) = bench.closed(extent::count(ITEMS), 256, extent::time(TIME)).await?;
    drop(service);
    let measured = measure(bench, LOAD * closed.accepted_per_second()).await?;
    let (before, stall) = (extent::time(BEFORE).as_secs_f64(), extent::time(STALL).as_secs_f64());
    let (resumed, end) = (before + stall, before + stall + extent::time(AFTER).as_secs_f64());
    let at_first = measured.accepted_per_second(before / 2.0, before);
    let recovered = measured.recovered_after(resumed, RECOVERED * at_first);
    let later = measured.accepted_per_second(resumed + (end - resumed) / 2.0, end);
    let p99 = |from, to, fate| percentile(&measured.took_ms(from, to, fate), 99);
    // Those that were begun when it stopped, and until a limit was reached, wait for their time to run out.
    let full = before + stall / 2.0;
    Ok(vec![
        above("bids sent, four fifths of what 256 clients that wait get", "bids/s", measured.per_second, 0.0),
        below(
            "p99 of being rejected, while the database stands still",
            "ms",
            p99(full, resumed, Fate::Rejected),
            REJECTED_WITHIN_MS,
        ),
        below("until as many are accepted as before, from when it goes on", "s", recovered, RECOVERED_WITHIN_S),
        beside("bids accepted, after it has stood still", "bids/s", later, ("before", at_first), RECOVERED),
        at_most(
            "p99 of a decision, after it has stood still",
            "ms",
            p99(resumed + (end - resumed) / 2.0, end, Fate::Accepted),
            ("before", p99(before / 2.0, before, Fate::Accepted)),
            f64::INFINITY,
        ),
        below("bids acknowledged and not in the ledger", "bids", figure(measured.lost), 1.0),
        below("memory of the service at most, its database stood still", "MiB", measured.memory_mib, f64::INFINITY),
    ])
}

impl Measured {
    fn accepted(&self) -> impl Iterator<Item = &Answered> {
        self.answered.iter().filter(|answered| answered.fate == Fate::Accepted)
    }

    fn accepted_per_second(&self, from: f64, to: f64) -> f64 {
        let within = self.accepted().filter(|answered| (from..to).contains(&answered.known_s));
        figure(within.count()) / (to - from)
    }

    /// Of those placed in between, sorted.
    fn took_ms(&self, from: f64, to: f64, fate: Fate) -> Vec<f64> {
        let placed = self.answered.iter().filter(|one| one.fate == fate && (from..to).contains(&one.placed_s));
        let mut took: Vec<_> = placed.map(|one| (one.known_s - one.placed_s) * 1_000.0).collect();
        took.sort_by(f64::total_cmp);
        took
    }

    /// Seconds until, in half a second, so many were accepted that were placed in it.
    fn recovered_after(&self, resumed: f64, per_second: f64) -> f64 {
        const HALF_S: f64 = 0.5;
        let end = self.answered.iter().map(|one| one.known_s).fold(resumed, f64::max);
        let mut from = resumed;
        while from + HALF_S <= end {
            let fresh = |one: &&Answered| one.placed_s >= from - HALF_S && (from..from + HALF_S).contains(&one.known_s);
            if figure(self.accepted().filter(fresh).count()) >= per_second * HALF_S {
                return from + HALF_S - resumed;
            }
            from += HALF_S;
        }
        f64::INFINITY
    }
}

fn figure(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

async fn measure(bench: &Bench<'_>, per_second: f64) -> anyhow::Result<Measured> {
    let pool = bench.stage(extent::count(ITEMS)).await?;
    let service = bench.service().await?;
    let clients = load::connect(&bench.releases, &service.address, CONNECTIONS).await?;
    let (began, lots) = (Instant::now(), Lots::new(extent::count(ITEMS)));
    let until = began + extent::time(BEFORE) + extent::time(STALL) + extent::time(AFTER);
    let (answered, acknowledged) = (RefCell::new(Vec::new()), RefCell::new(HashSet::new()));
    let note = |(fate, item, amount): (Fate, String, i64), placed: Instant| {
        let since = |at: Instant| at.duration_since(began).as_secs_f64();
        answered.borrow_mut().push(Answered { placed_s: since(placed), known_s: since(Instant::now()), fate });
        if fate == Fate::Accepted {
            acknowledged.borrow_mut().insert((item, amount));
        }
    };
    eprintln!("  … {per_second:.0} bids/s, and the database stands still for {:?}", extent::time(STALL));
    tokio::try_join!(load::at_rate(clients, &lots, per_second, until, place, note), stand_still(&pool))?;
    let memory_mib = service.memory()?.1;
    drop(service);
    let lost = missing(&pool, &acknowledged.into_inner()).await?;
    Ok(Measured { per_second, answered: answered.into_inner(), lost, memory_mib })
}

async fn place(client: Client, item: String, amount: i64) -> anyhow::Result<(Fate, String, i64)> {
    let fate = match client.place(&item, amount).await? {
        Reply::Accepted(_) => Fate::Accepted,
        // By the rules: a higher bid was decided before it.
        Reply::Refused(9) => Fate::Refused,
        Reply::Refused(8) => Fate::Rejected,
        Reply::Refused(_) => Fate::Failed,
    };
    Ok((fate, item, amount))
}

/// Stops every process of the server for a while.
async fn stand_still(pool: &PgPool) -> anyhow::Result<()> {
    tokio::time::sleep(extent::time(BEFORE)).await;
    let stopped = Stopped(processes(pool).await?);
    signal("STOP", &stopped.0)?;
    tokio::time::sleep(extent::time(STALL)).await;
    Ok(())
}

/// They go on when this is dropped, also where the load has failed meanwhile.
struct Stopped(Vec<u32>);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = signal("CONT", &self.0);
    }
}

/// The server's first process, and those that it has started.
async fn processes(pool: &PgPool) -> anyhow::Result<Vec<u32>> {
    let own: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(pool).await?;
    let first = Stat::of(u32::try_from(own)?)?.parent().context("a server's process has a parent")?;
    let all = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let started = all.filter(|process| Stat::of(*process).is_ok_and(|stat| stat.parent() == Some(first)));
    Ok([first].into_iter().chain(started).collect())
}

fn signal(name: &str, processes: &[u32]) -> anyhow::Result<()> {
    let signalled = Command::new("kill").arg(format!("-{name}")).args(processes.iter().map(u32::to_string)).status()?;
    ensure!(signalled.success(), "kill -{name}");
    Ok(())
}

/// How many of these the ledger does not have.
async fn missing(pool: &PgPool, acknowledged: &HashSet<(String, i64)>) -> anyhow::Result<usize> {
    let rows = sqlx::query_as("SELECT item_id::text, max_amount_minor FROM bids");
    let ledger: HashSet<(String, i64)> = rows.fetch_all(pool).await?.into_iter().collect();
    ensure!(ledger.iter().any(|(item, _)| *item == item_id(1)), "nobody has bid on the first item");
    Ok(acknowledged.difference(&ledger).count())
}
