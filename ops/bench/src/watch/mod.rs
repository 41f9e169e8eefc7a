//! Watchers of one item, each on a connection of its own, while it is bid on; and Centrifugo's of one channel beside
//! them.
mod centrifugo;
mod seen;
mod stalled;
mod streamed;

use crate::{
    bids::{
        Bench,
        client::{Answer, Client, framed},
        load::{self, Lots, item_id, percentile},
        service::Process,
    },
    events::variable,
    extent,
    report::{Row, above, below, compared},
    waiting,
};
use bytes::{Buf, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use gavel_runtime::clock;
use seen::{Lateness, Shared};
use sqlx::PgPool;
pub(crate) use stalled::run as stalled;
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};
use streamed::Streamed;
use tokio::{net::TcpStream, task::LocalSet};

/// What is measured, and what must come of it.
const LOADS: [(Load, Goals); 4] = [
    (Load { watchers: 2_000, per_second: 20 }, Goals { p99_ratio: 1.25, themselves_percent: 98.0 }),
    (Load { watchers: 2_000, per_second: 50 }, Goals { p99_ratio: 1.0, themselves_percent: 80.0 }),
    (Load { watchers: 10_000, per_second: 5 }, Goals { p99_ratio: 1.0, themselves_percent: 0.0 }),
    (Load { watchers: 10_000, per_second: 10 }, Goals { p99_ratio: 1.0, themselves_percent: 0.0 }),
];
const SMOKE: Load = Load { watchers: 200, per_second: 20 };
/// Memory of an idle watcher at most, in KiB.
const MEMORY_KIB: f64 = 40.0;
/// Connections made at a time.
const AT_A_TIME: usize = 250;
const WARM_UP: Duration = Duration::from_secs(3);
const TIME: Duration = Duration::from_secs(10);
/// More than watch at the same time.
const CONNECTIONS: &str = "20000";
/// Between two bids on items that nobody watches.
const OTHERS_EVERY: Duration = Duration::from_millis(25);

/// So many watch, and so often there is something new.
#[derive(Debug, Clone, Copy)]
struct Load {
    watchers: usize,
    per_second: u32,
}

struct Goals {
    /// Of Centrifugo's.
    p99_ratio: f64,
    themselves_percent: f64,
}

impl Goals {
    const NONE: Self = Self { p99_ratio: f64::INFINITY, themselves_percent: 0.0 };
}

impl Load {
    fn every(self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }
}

/// `only` is a number of watchers, or `WATCHERSxBIDS` a second. Without Centrifugo's program there is nothing beside
/// ours.
pub(crate) async fn run(bench: &Bench<'_>, only: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let peer = std::env::var("CENTRIFUGO").ok();
    let mut rows = Vec::new();
    for (load, goals) in chosen(only)? {
        eprintln!("  … {} watchers, {} bids/s", load.watchers, load.per_second);
        rows.extend(LocalSet::new().run_until(watched(bench, load, &goals, peer.as_deref())).await?);
    }
    Ok(rows)
}

fn chosen(only: Option<&str>) -> anyhow::Result<Vec<(Load, Goals)>> {
    if extent::is_smoke() && only.is_none() {
        return Ok(vec![(SMOKE, Goals::NONE)]);
    }
    let Some(only) = only else { return Ok(LOADS.into()) };
    let Some((watchers, per_second)) = only.split_once('x') else {
        let watchers: usize = only.parse()?;
        let mut some: Vec<_> = LOADS.into_iter().filter(|(load, _)| load.watchers == watchers).collect();
        if some.is_empty() {
            some.push((Load { watchers, per_second: 20 }, Goals::NONE));
        }
        return Ok(some);
    };
    let load = Load { watchers: watchers.parse()?, per_second: per_second.parse()? };
    let same = |(known, _): &(Load, Goals)| known.watchers == load.watchers && known.per_second == load.per_second;
    let known = LOADS.into_iter().find(same);
    Ok(vec![known.unwrap_or((load, Goals::NONE))])
}

/// What Gavel made of a load.
struct Ours {
    lateness: Lateness,
    /// Of bids on other items, in ms: before anybody watched, and meanwhile.
    others_p99_ms: (f64, f64),
    memory_kib_each: f64,
    memory_mib: f64,
}

async fn watched(bench: &Bench<'_>, load: Load, goals: &Goals, peer: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let ours = ours(bench, load).await?;
    let theirs = match peer {
        Some(program) => Some(theirs(bench, load, program).await?),
        None => None,
    };
    let name = format!("{} watchers, {} bids/s", load.watchers, load.per_second);
    let whole_way =
        format!("until a client has it or a newer one, from the decision (Centrifugo: the publication), {name}");
    let Lateness { ms, themselves_percent } = &ours.lateness;
    let beside = |percent| theirs.as_ref().map(|(theirs, _)| ("Centrifugo", percentile(&theirs.ms, percent)));
    let others = theirs.as_ref().map(|(_, others)| ("while Centrifugo tells them", *others));
    let others_work = format!("bids on other items, {name}, p99");
    Ok(vec![
        compared(&format!("{whole_way}, p50"), "ms", percentile(ms, 50), beside(50), f64::INFINITY),
        compared(&format!("{whole_way}, p99"), "ms", percentile(ms, 99), beside(99), goals.p99_ratio),
        above(
            &format!("versions that came themselves, not a newer one instead, {name}"),
            "%",
            *themselves_percent,
            goals.themselves_percent,
        ),
        below("bids on other items, nobody watches, p99", "ms", ours.others_p99_ms.0, f64::INFINITY),
        compared(&others_work, "ms", ours.others_p99_ms.1, others, f64::INFINITY),
        below(&format!("memory per idle watcher, {} watchers", load.watchers), "KiB", ours.memory_kib_each, MEMORY_KIB),
        below(&format!("memory of the service at most, {name}"), "MiB", ours.memory_mib, f64::INFINITY),
    ])
}

/// Returns how late Centrifugo's watchers hear, and bids on our service meanwhile, p99 in ms.
async fn theirs(bench: &Bench<'_>, load: Load, program: &str) -> anyhow::Result<(Lateness, f64)> {
    let _pool = bench.stage(2).await?;
    let service = start(bench, "bid-service", &[]).await?;
    let _relay = start(bench, "bid-worker", &["--only", "relay_outbox"]).await?;
    let others = Others::begin(&service.address, &bench.releases.token("other")?)?;
    let (lateness, others_p99_ms) = centrifugo::lateness(program, bench.out, load, || others.take_p99()).await?;
    Ok((lateness, others_p99_ms))
}

async fn ours(bench: &Bench<'_>, load: Load) -> anyhow::Result<Ours> {
    let pool = bench.stage(2).await?;
    let service = start(bench, "bid-service", &[]).await?;
    let _relay = start(bench, "bid-worker", &["--only", "relay_outbox"]).await?;
    let bidder = load::connect(&bench.releases, &service.address, 1).await?.remove(0);
    let others = Others::begin(&service.address, &bench.releases.token("other")?)?;
    tokio::time::sleep(extent::time(Duration::from_secs(4))).await;
    let before = others.take_p99()?;
    let (memory_before, _) = service.memory()?;
    let (seen, token) = (Shared::default(), bench.releases.token("watcher")?);
    all_watch(&seen, load.watchers, || watch(&service.address, &token, seen.clone())).await?;
    // Until the first heartbeats and counts are through.
    tokio::time::sleep(extent::time(Duration::from_secs(3))).await;
    let memory_kib_each = (service.memory()?.0 - memory_before) * 1_024.0 / f64::from(u32::try_from(load.watchers)?);
    seen.borrow_mut().clear();

    let lots = Lots::new(1);
    let mut tick = tokio::time::interval(load.every());
    let from = clock::wall() + extent::time(WARM_UP);
    others.take_p99()?;
    while clock::wall() < from + extent::time(TIME) {
        tick.tick().await;
        let (item, amount) = lots.next();
        bidder.bid(&item, amount).await?;
    }
    let meanwhile = others.take_p99()?;
    let made = decided(&pool, from).await?;
    let newest = made.last().map_or(0, |(version, _)| *version);
    all_know(&seen, newest, load.watchers).await?;
    let lateness = seen.borrow().lateness(&made);
    Ok(Ours { lateness, others_p99_ms: (before, meanwhile), memory_kib_each, memory_mib: service.memory()?.1 })
}

/// Has all of them connect, some at a time, and waits until each has its first answer.
async fn all_watch<F: Future<Output = anyhow::Result<()>>>(
    seen: &Shared,
    watchers: usize,
    watch: impl Fn() -> F,
) -> anyhow::Result<()> {
    for first in (0..watchers).step_by(AT_A_TIME) {
        let some = AT_A_TIME.min(watchers - first);
        waiting::in_time("connecting watchers", try_join_all((0..some).map(|_| watch()))).await?;
    }
    waiting::reached("everybody has a first answer", watchers as u64, || async { Ok(seen.borrow().watching as u64) })
        .await
}

/// Waits until everybody knows the newest version.
async fn all_know(seen: &Shared, version: i64, watchers: usize) -> anyhow::Result<()> {
    let know = || async { Ok(seen.borrow().know(version) as u64) };
    waiting::reached("everybody knows the newest version", watchers as u64, know).await
}

/// Bids on another item than the one that is watched, from a thread of their own: the watchers' is busy.
struct Others {
    took_ms: Arc<Mutex<Vec<f64>>>,
}

impl Others {
    fn begin(address: &str, token: &str) -> anyhow::Result<Self> {
        let took_ms = Arc::<Mutex<Vec<f64>>>::default();
        let (noted, address, token) = (took_ms.clone(), address.to_owned(), token.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // They end with the service.
        thread::spawn(move || runtime.block_on(bid_on(&address, &token, &noted)));
        Ok(Self { took_ms })
    }

    /// Since it was last asked.
    fn take_p99(&self) -> anyhow::Result<f64> {
        let mut took = std::mem::take(&mut *self.took_ms.lock().unwrap_or_else(PoisonError::into_inner));
        anyhow::ensure!(!took.is_empty(), "no bid on the other item was answered");
        took.sort_by(f64::total_cmp);
        Ok(percentile(&took, 99))
    }
}

async fn bid_on(address: &str, token: &str, took_ms: &Mutex<Vec<f64>>) -> anyhow::Result<()> {
    let bidder = Client::connect(address, token).await?;
    let mut tick = tokio::time::interval(OTHERS_EVERY);
    for step in 1.. {
        // From when it was due: one that is late makes others late.
        let due = tick.tick().await;
        let answer = bidder.bid(&item_id(2), load::START_MINOR + step * load::STEP_MINOR).await?;
        anyhow::ensure!(answer == Answer::Accepted, "a bid on the other item was {answer:?}");
        took_ms.lock().unwrap_or_else(PoisonError::into_inner).push(due.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(())
}

async fn start(bench: &Bench<'_>, program: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let (database, amqp, redis) = (bench.url(), variable("AMQP_URL")?, variable("REDIS_URL")?);
    let variables = [
        ("DATABASE_URL", database.as_str()),
        ("AMQP_URL", amqp.as_str()),
        ("REDIS_URL", redis.as_str()),
        ("GAVEL_CONNECTIONS", CONNECTIONS),
    ];
    bench.releases.start(program, arguments, &variables).await
}

/// When each version was decided, by the database's clock, from then on.
async fn decided(pool: &PgPool, from: DateTime<Utc>) -> anyhow::Result<Vec<(i64, DateTime<Utc>)>> {
    let rows = sqlx::query_as(
        "SELECT sequence, decided_at FROM bids WHERE item_id = $1::uuid AND decided_at >= $2 ORDER BY sequence",
    );
    Ok(rows.bind(item_id(1)).bind(from).fetch_all(pool).await?)
}

/// Begins to watch, as a browser does that speaks JSON; goes on until the service is gone.
async fn watch(address: &str, token: &str, seen: Shared) -> anyhow::Result<()> {
    let mut stream = ask(TcpStream::connect(address).await?, token).await?;
    let watcher = seen.borrow_mut().join();
    tokio::task::spawn_local(async move {
        let mut body = BytesMut::new();
        while stream.read(&mut body).await.unwrap_or(false) {
            let at = clock::wall();
            while let Some(message) = take_message(&mut body) {
                let mut seen = seen.borrow_mut();
                let is_update = message.starts_with(b"{\"update\"");
                if let Some(version) = version_in(&message).filter(|_| is_update) {
                    seen.came(watcher, version, at);
                }
                seen.watching += usize::from(message.starts_with(b"{\"snapshot\""));
            }
        }
    });
    Ok(())
}

/// Asks for what a browser asks for; gives the answer, of which nothing is read yet.
async fn ask(connection: TcpStream, token: &str) -> anyhow::Result<Streamed> {
    let asked = serde_json::json!({ "itemId": item_id(1) }).to_string();
    let framed = framed(asked.as_bytes())?;
    let (path, more) = ("/gavel.v1.ItemService/WatchItem", format!("authorization: Bearer {token}\r\n"));
    Streamed::post(connection, path, "application/connect+json", &more, &framed).await
}

/// The version that an update in JSON has.
fn version_in(json: &[u8]) -> Option<i64> {
    const VERSION: &[u8] = b"\"version\":\"";
    let found = json.windows(VERSION.len()).position(|bytes| bytes == VERSION)?;
    let digits = json[found + VERSION.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

fn take_message(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(buffer.get(1..5)?.try_into().ok()?) as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    Some(buffer.split_to(length).freeze())
}
