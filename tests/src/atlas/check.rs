//! What must hold after whatever fault, once it is quiet: what clients were told is compared with what is left.
//!
//! I1 an acknowledged bid is in the ledger exactly once, and nothing else is; I2 prices only rise, nothing is taken
//! after the end, one winner; I3 every change is told, exactly those; I4 statistics and the read model are what the
//! ledger says; I5 every job has its effect once, none is dead; I6 nothing is left open; I7 who was interrupted is
//! answered.
use super::history::{Bid, History, Told, until_known};
use crate::{Api, System, broker::Broker, eventually, servers::Servers, system::CONSUMER_QUEUES};
use futures_util::future::join_all;
use sqlx::{FromRow, postgres::PgRow};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

/// A read that nobody answers by then is a fault of its own.
const READ_WITHIN: Duration = Duration::from_mins(1);
/// Fewer say nothing.
const BIDS: usize = 7;

/// Said of a message that is parked in the end.
pub const PARKED: &str = "I5: a message is parked";

/// Users whose statistics differ from what items and bids say: how many.
pub const DIFFERING: &str = "SELECT count(*) FROM
   (SELECT bidder_id AS user_id, currency, count(*) AS bids, count(DISTINCT item_id) AS items
    FROM bids JOIN items USING (item_id) GROUP BY 1, 2) b
   FULL JOIN (SELECT leader_id AS user_id, currency, count(*) AS won, sum(price_minor) AS spent FROM items
              WHERE closed_at IS NOT NULL AND cancel_reason IS NULL AND leader_id IS NOT NULL GROUP BY 1, 2) w
     USING (user_id, currency)
   FULL JOIN user_stats s USING (user_id, currency)
   WHERE (coalesce(b.bids, 0), coalesce(b.items, 0), coalesce(w.won, 0), coalesce(w.spent, 0))
     IS DISTINCT FROM (s.bids_placed, s.items_bid_on, s.items_won, s.total_spent_minor)";
/// Bids that do not raise the price of their item, or came at its end or after it.
const NOT_RISING: &str = "SELECT count(*) FROM
   (SELECT max_amount_minor, lag(max_amount_minor) OVER (PARTITION BY item_id ORDER BY sequence) AS before, decided_at,
           ends_at
    FROM bids JOIN items USING (item_id)) b
   WHERE max_amount_minor <= before OR decided_at >= ends_at";
/// Items whose leader or price is not that of the last bid, or whose version does not count what happened to them.
const MISCOUNTED: &str = "SELECT count(*) FROM items i
   LEFT JOIN LATERAL (SELECT count(*) AS n, (array_agg(bidder_id ORDER BY sequence DESC))[1] AS last,
                             max(max_amount_minor) AS price
                      FROM bids WHERE item_id = i.item_id) b ON true
   WHERE i.bid_count <> b.n OR i.leader_id IS DISTINCT FROM b.last OR i.price_minor IS DISTINCT FROM b.price
      OR i.version <> 1 + b.n + (i.closed_at IS NOT NULL)::int";
/// Items that were sold and are not in the ledger of what was spent, or the other way round.
const SOLD_OTHERWISE: &str = "SELECT count(*) FROM
   (SELECT item_id, leader_id AS user_id, price_minor AS amount_minor FROM items
    WHERE closed_at IS NOT NULL AND cancel_reason IS NULL AND leader_id IS NOT NULL) i
   FULL JOIN spend_ledger s USING (item_id, user_id, amount_minor) WHERE i IS NULL OR s IS NULL";
/// Transactions that nobody goes on with, and those that wait for one.
pub const LEFT_OPEN: &str = "SELECT count(*) FROM pg_stat_activity
   WHERE datname = current_database() AND pid <> pg_backend_pid()
     AND (state LIKE 'idle in transaction%' OR wait_event_type = 'Lock')
     AND state_change < clock_timestamp() - interval '1 second'";

/// Waits until nothing is under way any more.
pub async fn quiet(system: &System, broker: &Broker) {
    told(system, broker).await;
    eventually("the read model has everything", || behind(system), Vec::is_empty).await;
    eventually("statistics are what the ledger says", || system.count(DIFFERING), |n| *n == 0).await;
    eventually("nothing is left open", || system.count(LEFT_OPEN), |n| *n == 0).await;
}

/// Waits until everything that happened has been told, and taken.
pub async fn told(system: &System, broker: &Broker) {
    eventually("every event has been relayed", || system.count("SELECT count(*) FROM outbox"), |n| *n == 0).await;
    // They may be deleted, and declared anew.
    let depths = || join_all(CONSUMER_QUEUES.map(|queue| broker.depth_if_there(queue)));
    let is_taken = |depth: &Option<(u32, u32)>| depth.is_some_and(|(ready, _)| ready == 0);
    eventually("every message has been taken", depths, |depths| depths.iter().all(is_taken)).await;
}

/// Has somebody ask for each item that an emptied read model lacks, or has in an earlier version: an event that comes once
/// more finds nothing newer there. Whoever reads one has it put right.
pub async fn read_behind(system: &System, api: &Api) {
    read_each(api, behind(system).await).await;
}

/// Has somebody ask for each item that is over: `bidctl rebuild read-model` leaves to readers what was never shown of those.
pub async fn read_ended(system: &System, api: &Api) {
    let ended: Vec<(String,)> = rows(system, "SELECT item_id::text FROM items WHERE closed_at IS NOT NULL").await;
    read_each(api, ended.into_iter().map(|(item_id,)| item_id)).await;
}

async fn read_each(api: &Api, items: impl IntoIterator<Item = String>) {
    for item_id in items {
        let (read, _) = until_known(READ_WITHIN, async || api.item(&item_id).await).await;
        read.expect("it can be read");
    }
}

/// Items whose newest version the read model has not.
async fn behind(system: &System) -> Vec<String> {
    let items: Vec<(String, i64)> = rows(system, "SELECT item_id::text, version FROM items").await;
    let client = redis::Client::open(Servers::of_this_run().redis).expect("Redis' URL");
    let mut redis = client.get_multiplexed_async_connection().await.expect("Redis answers");
    let mut asks = redis::pipe();
    for (item_id, _) in &items {
        asks.hget(format!("{}:item:{item_id}", system.name()), "version");
    }
    let held: Vec<Option<i64>> = asks.query_async(&mut redis).await.expect("Redis answers");
    let behind = items.into_iter().zip(held).filter(|((_, version), held)| Some(*version) != *held);
    behind.map(|((item_id, _), _)| item_id).collect()
}

/// What does not hold of a case.
pub async fn violations(system: &System, api: &Api, history: &History, told: &BTreeSet<String>) -> Vec<String> {
    let mut found = of_bids(system, history).await;
    let done = history.bids.iter().filter(|bid| acknowledged(bid).is_some()).count();
    let mut must = |holds: bool, what: String| found.extend((!holds).then_some(what));
    must(history.bids.len() >= BIDS, format!("the history is too short: {} bids", history.bids.len()));
    must(done > 0 && done < history.bids.len(), "some bids are taken, and some refused".to_owned());
    let events = history.items.len() + done + 2;
    must(told.len() == events, format!("I3: {} events were told, {events} things happened", told.len()));
    let sales = system.count("SELECT count(*) FROM spend_ledger").await;
    must(sales <= 1, format!("I5: one item was sold, {sales} times"));
    found.extend(of_everything(system).await);
    found.extend(of_what_is_shown(system, api, &history.items).await);
    found
}

/// What does not hold between what bidders were told and the ledger.
pub async fn of_bids(system: &System, history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let ledger: Vec<(String, String, i64, String, i64)> =
        rows(system, "SELECT bid_id::text, item_id::text, sequence, bidder_id, max_amount_minor FROM bids").await;
    let ledger: HashMap<_, _> =
        ledger.into_iter().map(|(id, item, at, who, amount)| (id, (item, at, who, amount))).collect();
    let receipts: Vec<(String,)> = rows(system, "SELECT idempotency_key::text FROM idempotency_keys").await;
    let receipts: HashSet<_> = receipts.into_iter().map(|(key,)| key).collect();
    let mut done = 0;
    for bid in &history.bids {
        let Told::Done(reply) = &bid.told else { continue };
        done += 1;
        let Bid { bidder, item_id, amount, key, .. } = bid;
        let told = (item_id.clone(), reply.sequence, bidder.clone(), reply.price_minor);
        if ledger.get(&reply.bid_id) != Some(&told) || reply.price_minor != *amount {
            found.push(format!("I1: {bidder}'s acknowledged bid of {amount} is not there"));
        }
        if !receipts.contains(key) {
            found.push(format!("I1: {bidder}'s bid of {amount} has no receipt"));
        }
    }
    if ledger.len() != done {
        found.push(format!("I1: {} bids in the ledger, {done} acknowledged", ledger.len()));
    }
    found
}

/// What does not hold of what is stored, whatever anybody was told.
pub async fn of_everything(system: &System) -> Vec<String> {
    let mut found = Vec::new();
    for (count, what) in [
        (NOT_RISING, "I2: a bid that raised no price, or came after the end"),
        (MISCOUNTED, "I2: an item that does not count its bids"),
        (DIFFERING, "I4: statistics that the ledger does not say"),
        (SOLD_OTHERWISE, "I5: a sale that is not in the ledger of what was spent once"),
        ("SELECT count(*) FROM dead_jobs", "I5: a job is dead"),
        ("SELECT count(*) FROM parked_messages", PARKED),
        (LEFT_OPEN, "I6: a transaction is left open"),
    ] {
        if system.count(count).await > 0 {
            found.push(what.to_owned());
        }
    }
    found
}

/// What readers are shown of these items, that is not so.
pub async fn of_what_is_shown(system: &System, api: &Api, items: &[String]) -> Vec<String> {
    let versions: Vec<(String, i64)> = rows(system, "SELECT item_id::text, version FROM items").await;
    let versions: HashMap<_, _> = versions.into_iter().collect();
    let mut found = Vec::new();
    for item_id in items {
        let version = versions.get(item_id).copied();
        // As often as one reader may.
        let (shown, _) = until_known(READ_WITHIN, async || api.item(item_id).await).await;
        let shown = shown.map(|reply| reply.item.map(|item| item.version)).map_err(|failure| failure.message);
        if shown != Ok(version) {
            found.push(format!("I4: {item_id} is shown at version {shown:?}, it is {version:?}"));
        }
    }
    found
}

async fn rows<T>(system: &System, sql: &str) -> Vec<T>
where
    T: Send + Unpin + for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_as(sql).fetch_all(&system.db).await.expect("read")
}

/// The bid's id, where it was acknowledged.
pub fn acknowledged(bid: &Bid) -> Option<&str> {
    match &bid.told {
        Told::Done(reply) => Some(&reply.bid_id),
        Told::Refused(..) => None,
    }
}
