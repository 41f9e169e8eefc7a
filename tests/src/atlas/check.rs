//! What must hold after whatever fault, once it is quiet: what clients were told is compared with what is left.
//!
//! I1 an acknowledged bid is in the ledger exactly once, and nothing else is; I2 prices only rise, nothing is taken
//! after the end, one winner; I3 every change is told, exactly those; I4 statistics and the read model are what the
//! ledger says; I5 every job has its effect once, none is dead; I6 nothing is left open; I7 who was interrupted is
//! answered.
use super::history::{Bid, History, Told};
use crate::{Api, System, broker::Broker, eventually, system::CONSUMER_QUEUES};
use std::collections::BTreeSet;

/// Fewer say nothing.
const BIDS: usize = 7;

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
/// Bids that do not raise the price of their item, or came after its end.
const NOT_RISING: &str = "SELECT count(*) FROM
   (SELECT max_amount_minor, lag(max_amount_minor) OVER (PARTITION BY item_id ORDER BY sequence) AS before, decided_at,
           closed_at
    FROM bids JOIN items USING (item_id)) b
   WHERE max_amount_minor <= before OR decided_at > closed_at";
/// Items whose leader is not the last bidder, or whose version does not count what happened to them.
const MISCOUNTED: &str = "SELECT count(*) FROM items i
   LEFT JOIN LATERAL (SELECT count(*) AS n, (array_agg(bidder_id ORDER BY sequence DESC))[1] AS last
                      FROM bids WHERE item_id = i.item_id) b ON true
   WHERE i.bid_count <> b.n OR i.leader_id IS DISTINCT FROM b.last
      OR i.version <> 1 + b.n + (i.closed_at IS NOT NULL)::int";
/// Transactions that nobody goes on with, and those that wait for one.
const LEFT_OPEN: &str = "SELECT count(*) FROM pg_stat_activity
   WHERE datname = current_database() AND pid <> pg_backend_pid()
     AND (state LIKE 'idle in transaction%' OR wait_event_type = 'Lock')
     AND state_change < clock_timestamp() - interval '1 second'";

/// Waits until nothing is under way any more.
pub async fn quiet(system: &System, broker: &Broker) {
    eventually("every event has been relayed", || system.count("SELECT count(*) FROM outbox"), |n| *n == 0).await;
    let depths = || async { [broker.depth(CONSUMER_QUEUES[0]).await, broker.depth(CONSUMER_QUEUES[1]).await] };
    eventually("every message has been taken", depths, |depths| depths.iter().all(|(ready, _)| *ready == 0)).await;
    eventually("statistics are what the ledger says", || system.count(DIFFERING), |n| *n == 0).await;
    eventually("nothing is left open", || system.count(LEFT_OPEN), |n| *n == 0).await;
}

/// Everything that does not hold.
pub async fn violations(system: &System, api: &Api, history: &History, told: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            found.push(what);
        }
    };
    let done: Vec<_> = history.bids.iter().filter_map(|bid| Some((bid, acknowledged(bid)?))).collect();
    must(history.bids.len() >= BIDS, format!("the history is too short: {} bids", history.bids.len()));
    must(!done.is_empty() && done.len() < history.bids.len(), "some bids are taken, and some refused".to_owned());
    for (bid, bid_id) in &done {
        let Bid { bidder, item_id, amount, key, .. } = bid;
        let in_ledger = format!(
            "SELECT count(*) FROM bids WHERE bid_id = '{bid_id}' AND item_id = '{item_id}' AND bidder_id = '{bidder}'
               AND max_amount_minor = {amount}"
        );
        must(system.count(&in_ledger).await == 1, format!("I1: {bidder}'s acknowledged bid of {amount} is not there"));
        let receipts = format!("SELECT count(*) FROM idempotency_keys WHERE idempotency_key = '{key}'");
        must(system.count(&receipts).await == 1, format!("I1: {bidder}'s bid of {amount} has no receipt"));
    }
    let bids = system.count("SELECT count(*) FROM bids").await;
    must(bids == done.len() as i64, format!("I1: {bids} bids in the ledger, {} acknowledged", done.len()));
    must(system.count(NOT_RISING).await == 0, "I2: a bid that raised no price, or came after the end".to_owned());
    must(system.count(MISCOUNTED).await == 0, "I2: an item that does not count its bids".to_owned());
    let events = history.items.len() + done.len() + 2;
    must(told.len() == events, format!("I3: {} events were told, {events} things happened", told.len()));
    must(system.count(DIFFERING).await == 0, "I4: statistics that the ledger does not say".to_owned());
    for item_id in &history.items {
        let version = system.count(&format!("SELECT version FROM items WHERE item_id = '{item_id}'")).await;
        let shown = api.item(item_id).await.ok().and_then(|reply| reply.item).map(|item| item.version);
        must(shown == Some(version), format!("I4: {item_id} is shown at version {shown:?}, it is {version}"));
    }
    let sales = system.count("SELECT count(*) FROM spend_ledger").await;
    must(sales <= 1, format!("I5: one item was sold, {sales} times"));
    must(system.count("SELECT count(*) FROM dead_jobs").await == 0, "I5: a job is dead".to_owned());
    must(system.count("SELECT count(*) FROM parked_messages").await == 0, "I5: a message is parked".to_owned());
    must(system.count(LEFT_OPEN).await == 0, "I6: a transaction is left open".to_owned());
    found
}

fn acknowledged(bid: &Bid) -> Option<&str> {
    match &bid.told {
        Told::Done(reply) => Some(&reply.bid_id),
        Told::Refused(_) => None,
    }
}
