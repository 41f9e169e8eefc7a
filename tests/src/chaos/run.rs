//! A run: load and faults beside each other, then quiet, then what must hold.
use super::{
    Plan,
    clients::{Known, Market},
    fleet::Fleet,
    nemesis::{Arena, Fault},
};
use crate::{
    Api, Options, System,
    atlas::{attack::text_of, check, filling::CHANGES, history::Told},
    broker::Broker,
    eventually,
    eventually::eventually_within,
    evolving::{MIGRATING, Operator},
    servers::Servers,
};
use chrono::{DateTime, Utc};
use fastrand::Rng;
use futures_util::{FutureExt, future::join_all};
use gavel_rules::{Ladder, MAX_AMOUNT_MINOR};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

const BIDDERS: u64 = 24;
const WATCHERS: u64 = 6;
/// Faults are made by so many at a time: they meet.
const NEMESES: u64 = 2;
/// The items that are open then end within this, and what was held back is tried again.
const SETTLES_WITHIN: Duration = Duration::from_mins(3);
/// Everything is told to it.
const TAP: &str = "chaos.tap";

/// What came of a run.
pub struct Outcome {
    /// What clients know.
    pub known: Known,
    /// How many faults there were of each kind.
    pub faults: BTreeMap<Fault, u32>,
    /// From the last fault until it was quiet.
    pub quiet_after: Duration,
    /// What does not hold.
    pub violations: Vec<String>,
    /// What the processes said that run in the end.
    pub log: Vec<String>,
}

/// Runs a plan.
pub async fn run(plan: Plan) -> Outcome {
    let system = System::with(Options { proxied: true, small_disk: true, durable: true }).await;
    Broker::connect(&system.amqp_url).await.tap(TAP).await;
    let changes = Servers::of_this_run().last_release.is_some();
    if changes {
        // Where both live.
        system.expand_anew().await;
    }
    let fleet = Fleet::start(&system).await;
    let market = Market::new(&system, &fleet);
    let (mut faults, mut last_fault) = (BTreeMap::new(), Instant::now());
    // Whoever waits in vain panics, with what was seen last.
    let whole = AssertUnwindSafe(async {
        tokio::join!(trade(&market, plan.seed), async {
            faults = rage(&Arena::new(&system, &fleet), plan).await;
            last_fault = Instant::now();
            market.close();
        });
        if changes {
            fill(&system, &fleet).await;
        }
        settle(&system).await;
        if faults.contains_key(&Fault::EmptyCache) {
            check::read_behind(&system, &listening(&fleet).await).await;
        }
        check::quiet(&system, &Broker::once_it_is_there(&system.amqp_url).await).await;
    });
    let stuck = whole.catch_unwind().await.err().map(|panic| format!("I7: {}", text_of(&*panic)));
    let quiet_after = last_fault.elapsed();
    let known = market.known();
    let mut violations = known.wrong.clone();
    violations.extend(fleet.faults());
    violations.extend(too_little(&known, &faults));
    match stuck {
        Some(why) => {
            violations.push(why);
            violations.extend(check::of_everything(&system).await);
        }
        None => violations.extend(lost(&system, &fleet, &known).await),
    }
    Outcome { known, faults, quiet_after, violations, log: fleet.log() }
}

/// Everybody does what they do until the market is closed.
async fn trade(market: &Market<'_>, seed: u64) {
    let seeded = |n: u64| Rng::with_seed(seed.wrapping_mul(1_000).wrapping_add(n));
    let bidders = join_all((0..BIDDERS).map(|n| market.buy(n, seeded(n))));
    let watchers = join_all((0..WATCHERS).map(|n| market.watch(n, seeded(100 + n))));
    tokio::join!(bidders, watchers, market.sell(seeded(200)));
}

async fn rage(arena: &Arena<'_>, plan: Plan) -> BTreeMap<Fault, u32> {
    let plans = (0..NEMESES).map(|n| Plan { seed: plan.seed.wrapping_mul(1_000).wrapping_add(300 + n), ..plan });
    let mut all = BTreeMap::new();
    for (fault, count) in join_all(plans.map(|plan| arena.rage(plan))).await.into_iter().flatten() {
        *all.entry(fault).or_default() += count;
    }
    all
}

/// The last release is retired, and an operator fills what it left undone.
async fn fill(system: &System, fleet: &Fleet<'_>) {
    fleet.retire_last_release().await;
    let (service, _api) = system.service().await;
    let operator = Operator::at(system, &service).await;
    let _worker = system.worker_with(MIGRATING, &[]).await;
    for change in CHANGES {
        operator.begin(change).await;
    }
    let left = || system.count("SELECT count(*) FROM backfills WHERE state <> 'done'");
    eventually_within(SETTLES_WITHIN, "both backfills are done", left, |left| *left == 0).await;
}

/// Waits until every item is closed and everything is told.
async fn settle(system: &System) {
    let rows = |sql: &'static str| {
        let db = &system.db;
        // It may be recovering from the last fault.
        async move { sqlx::query_scalar::<_, i64>(sql).fetch_one(db).await.ok() }
    };
    for (what, sql) in [
        ("every item is closed", "SELECT count(*) FROM items WHERE closed_at IS NULL"),
        ("every event is relayed", "SELECT count(*) FROM outbox"),
    ] {
        eventually_within(SETTLES_WITHIN, what, || rows(sql), |n| *n == Some(0)).await;
    }
}

/// A run in which nothing happened says nothing.
fn too_little(known: &Known, faults: &BTreeMap<Fault, u32>) -> Vec<String> {
    let taken = known.history.bids.iter().filter(|bid| check::acknowledged(bid).is_some()).count();
    let refused = known.history.bids.len() - taken;
    let counts = [("bids were taken", taken), ("were refused", refused), ("faults were made", faults.len())];
    let few = counts.into_iter().filter(|(_, count)| *count == 0).map(|(what, _)| format!("no {what}"));
    few.chain((known.frames == 0).then(|| "no watcher saw anything".to_owned())).collect()
}

/// A client of a service, once that listens.
async fn listening(fleet: &Fleet<'_>) -> Api {
    eventually("a service listens", || async { fleet.api(0).is_some() }, |listens| *listens).await;
    fleet.api(0).expect("it listens")
}

/// What does not hold, once it is quiet.
async fn lost(system: &System, fleet: &Fleet<'_>, known: &Known) -> Vec<String> {
    let api = listening(fleet).await;
    let mut found = check::of_bids(system, &known.history).await;
    found.extend(check::of_everything(system).await);
    found.extend(check::of_what_is_shown(system, &api, &known.history.items).await);
    found.extend(replayed(system, known).await);
    let told = Broker::once_it_is_there(&system.amqp_url).await.take_ids(TAP).await.len();
    let events = system.count("SELECT coalesce(sum(version), 0)::bigint FROM items").await;
    if told as i64 != events {
        found.push(format!("I3: {told} events were told, {events} things happened"));
    }
    let (items, acknowledged) = (system.count("SELECT count(*) FROM items").await, known.history.items.len() as i64);
    if !(acknowledged..=acknowledged + known.given_up).contains(&items) {
        found.push(format!("I1: {items} items, {acknowledged} were acknowledged"));
    }
    found
}

/// The model: each item's bids one after another, by the rules. What was refused was refused in a state that the item
/// was in.
async fn replayed(system: &System, known: &Known) -> Vec<String> {
    let ledger: Vec<(String, i64)> =
        sqlx::query_as("SELECT item_id::text, max_amount_minor FROM bids ORDER BY item_id, sequence")
            .fetch_all(&system.db)
            .await
            .expect("read");
    let (mut found, mut minima, mut states) = (Vec::new(), HashMap::new(), HashSet::new());
    for item_id in &known.history.items {
        states.insert((item_id.clone(), 1_000));
    }
    for (item_id, amount) in ledger {
        let minimum = minima.get(&item_id).copied().unwrap_or(1_000);
        if amount < minimum {
            found.push(format!("I2: {amount} was taken for {item_id}, and {minimum} was the least"));
        }
        let next = Ladder::CURRENT.next_minimum_minor(1_000, Some(amount), MAX_AMOUNT_MINOR).unwrap_or(i64::MAX);
        states.insert((item_id.clone(), next));
        minima.insert(item_id, next);
    }
    let ends: Vec<(String, DateTime<Utc>)> =
        sqlx::query_as("SELECT item_id::text, ends_at FROM items").fetch_all(&system.db).await.expect("read");
    let ends: HashMap<_, _> = ends.into_iter().collect();
    for bid in &known.history.bids {
        let (why, is_right) = match &bid.told {
            Told::Done(_) => continue,
            Told::Refused(why, Some(minimum)) => {
                (why, bid.amount < *minimum && states.contains(&(bid.item_id.clone(), *minimum)))
            }
            // It had ended, then.
            Told::Refused(why, None) => (why, ends.get(&bid.item_id).is_some_and(|end| *end <= bid.answered_at)),
        };
        if !is_right {
            found.push(format!("I2: {} was refused {} for {}: {why}", bid.bidder, bid.amount, bid.item_id));
        }
    }
    found
}
