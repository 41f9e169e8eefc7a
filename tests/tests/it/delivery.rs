//! Every message three times, out of order, through workers that are killed: everything counts once.
use chrono::{TimeDelta, Utc};
use gavel_proto::v1::{GetItemResponse, ReadSource};
use gavel_tests::{Api, System, broker::Broker, eventually, system::CONSUMER_QUEUES};
use std::collections::BTreeMap;

const ITEMS: usize = 6;
const TAP: &str = "tap";

#[tokio::test]
async fn messages_three_times_out_of_order_with_workers_killed_before_their_ack_count_once() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    // Only the relay and the closing job run: the consumers get the messages from this test's hand.
    let makers = system.worker_with(&["--only", "relay_outbox,close_item"], &[]).await;
    let broker = Broker::connect(&system.amqp_url).await;
    broker.tap(TAP).await;
    let expected = sell_items(&system, &api).await;
    // Per item: created, three bids, closed.
    let messages = broker.take(TAP, ITEMS * 5).await;
    drop(makers);
    for queue in CONSUMER_QUEUES {
        broker.purge(queue).await;
    }

    let mut shuffled: Vec<_> = messages.iter().chain(&messages).chain(&messages).collect();
    // A fixed permutation that tears copies and order apart: 3 · ITEMS · 5 and 37 have no common factor.
    let count = shuffled.len();
    shuffled = (0..count).map(|index| shuffled[index * 37 % count]).collect();
    // In three parts, of which the first has half of the events: no batch has all that a user did, so each adds to what
    // others have counted. Each worker dies after the commit of a batch, before it acknowledges it.
    let (first, later) = shuffled.split_at(count / 6);
    let (second, third) = later.split_at(count / 3);
    for part in [first, second, third] {
        for message in part {
            broker.replay(message).await;
        }
        let mut worker = system.start_worker(&[], &[("GAVEL_FAILPOINTS", "apply_user_stats.before_ack=abort@1")]);
        assert!(!worker.ended().await.success(), "the worker was meant to die");
    }
    system.consume_everything(&broker).await;

    assert_eq!(statistics(&system).await, expected, "each message counts once");
    let in_ledger: i64 = sqlx::query_scalar("SELECT sum(amount_minor)::bigint FROM spend_ledger")
        .fetch_one(&system.db)
        .await
        .expect("the ledger");
    assert_eq!(in_ledger, expected.values().map(|(_, _, spent)| spent).sum::<i64>());
    let sales = || messages.iter().filter(|message| message.routing_key.as_str() == "item.closed");
    for message in sales() {
        let event = <gavel_proto::events_v1::ItemEvent as prost::Message>::decode(&message.data[..]).expect("an event");
        let item_id = event.item.expect("an item").item_id;
        let shown = eventually(
            "the read model converges on the newest version",
            || api.item(&item_id),
            |reply| {
                let is_newest = |reply: &GetItemResponse| reply.item.as_ref().is_some_and(|item| item.version == 5);
                reply.as_ref().is_ok_and(|reply| is_newest(reply) && reply.source() == ReadSource::ReadModel)
            },
        );
        shown.await.expect("the item is there");
    }

    // A receipt is swept some day, and a broker may hand out what it had kept for longer.
    sqlx::query("DELETE FROM inbox").execute(&system.db).await.expect("swept");
    for message in sales() {
        broker.replay(message).await;
    }
    system.consume_everything(&broker).await;
    let received: i64 = sqlx::query_scalar("SELECT count(*) FROM inbox").fetch_one(&system.db).await.expect("counted");
    assert!(received > 0, "nothing came again");
    assert_eq!(statistics(&system).await, expected, "what was spent is in a ledger of its own");
}

/// Each user's bids, wins and spend.
async fn statistics(system: &System) -> BTreeMap<String, (i64, i64, i64)> {
    let rows: Vec<(String, i64, i64, i64)> =
        sqlx::query_as("SELECT user_id, bids_placed, items_won, total_spent_minor FROM user_stats")
            .fetch_all(&system.db)
            .await
            .expect("the statistics");
    rows.into_iter().map(|(user, bids, won, spent)| (user, (bids, won, spent))).collect()
}

/// Sells a few items; returns what each bidder must be found to have done: bids, wins, spend.
async fn sell_items(system: &System, api: &Api) -> BTreeMap<String, (i64, i64, i64)> {
    let seller = api.with_token(system.token("sam", "seller"));
    let mut expected: BTreeMap<String, (i64, i64, i64)> = BTreeMap::new();
    for n in 0..ITEMS {
        let item = seller.create(&format!("Lamp {n}"), Utc::now() + TimeDelta::seconds(5)).await;
        for (turn, bidder) in ["alice", "bob", "carol"].iter().cycle().skip(n).take(3).enumerate() {
            let amount = 1_000 + n as i64 * 10_000 + turn as i64 * 2_000;
            let bidder_api = api.with_token(system.token(bidder, "bidder"));
            bidder_api.bid(&item.item_id, amount).await.expect("accepted");
            let entry = expected.entry((*bidder).to_owned()).or_default();
            entry.0 += 1;
            if turn == 2 {
                entry.1 += 1;
                entry.2 += amount;
            }
        }
    }
    expected
}
