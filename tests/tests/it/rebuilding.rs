//! Statistics made anew from the items and the ledger of bids, with events still on their way; the read model from the
//! items.
use crate::believing::administrator;
use chrono::{TimeDelta, Utc};
use gavel_tests::{System, atlas::check::DIFFERING, eventually};
use serde_json::Value;

async fn rebuild(system: &System) -> Result<Value, String> {
    let said = system.bidctl(&["--json", "rebuild", "stats", "--reason", "a bug was mended"]).await?;
    Ok(serde_json::from_str(&said).expect("JSON"))
}

#[tokio::test]
async fn they_are_what_the_ledger_says_and_what_is_on_its_way_counts_once() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let (seller, alice, bob) = (
        api.with_token(system.token("sam", "seller")),
        api.with_token(system.token("alice", "bidder")),
        api.with_token(system.token("bob", "bidder")),
    );
    let lamp = seller.create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id;
    let soon = seller.create("A clock", Utc::now() + TimeDelta::seconds(3)).await.item_id;
    alice.bid(&soon, 1_000).await.expect("taken");
    let mut worker = system.worker().await;
    let sold = || system.count("SELECT count(*) FROM spend_ledger");
    eventually("the clock is sold and counted", sold, |count| *count == 1).await;
    let refused = rebuild(&system).await.expect_err("a worker counts");
    assert!(refused.contains("stop these first") && refused.contains("bid-worker"), "{refused}");
    worker.terminate();
    assert!(worker.ended().await.success());

    // Nobody hears of these for now.
    bob.bid(&lamp, 1_000).await.expect("taken");
    alice.bid(&lamp, 2_000).await.expect("taken");
    // Bugs of many kinds: counted too often, not at all, for somebody who never bid; a sale written down wrongly, one that
    // never was, and receipts that are gone.
    for bug in [
        "UPDATE user_stats SET bids_placed = 77, total_spent_minor = total_spent_minor * 2 WHERE user_id = 'alice'",
        "INSERT INTO user_stats (user_id, currency, items_won) VALUES ('nobody', 'EUR', 3)",
        "UPDATE spend_ledger SET amount_minor = 5",
        "INSERT INTO spend_ledger (item_id, user_id, currency, amount_minor) SELECT item_id, 'bob', 'EUR', 7 FROM items
         WHERE closed_at IS NULL",
        "DELETE FROM inbox",
        "DELETE FROM user_items",
    ] {
        system.run(bug).await;
    }
    let rebuilt = rebuild(&system).await.expect("nobody works");
    // Of alice, of bob, who was not there yet, and of nobody.
    assert_eq!((&rebuilt["users"], &rebuilt["differed"]), (&2.into(), &3.into()), "{rebuilt}");
    assert_eq!(system.count(DIFFERING).await, 0);
    assert_eq!(rebuilt["events"].as_i64(), Some(system.count("SELECT count(*) FROM outbox").await), "{rebuilt}");
    let action = "SELECT count(*) FROM operator_actions WHERE action = 'rebuild_stats' AND reason = 'a bug was mended'";
    assert_eq!(system.count(action).await, 1);

    let _worker = system.worker().await;
    bob.bid(&lamp, 3_000).await.expect("taken");
    let counted = || system.count("SELECT bids_placed FROM user_stats WHERE user_id = 'bob'");
    eventually("what came later is counted", counted, |count| *count == 2).await;
    assert_eq!(system.count(DIFFERING).await, 0, "and what was on its way is not counted again");
}

#[tokio::test]
async fn messages_that_would_be_counted_twice_are_named() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item =
        api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id;
    let mut worker = system.worker().await;
    api.with_token(system.token("alice", "bidder")).bid(&item, 1_000).await.expect("taken");
    let counted = || system.count("SELECT count(*) FROM user_stats");
    eventually("it is counted", counted, |count| *count == 1).await;
    worker.terminate();
    assert!(worker.ended().await.success());
    // This one relays, and does not count.
    let mut relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    api.with_token(system.token("bob", "bidder")).bid(&item, 2_000).await.expect("taken");
    let waiting = || system.count("SELECT count(*) FROM outbox");
    eventually("it is told", waiting, |count| *count == 0).await;
    relay.terminate();
    assert!(relay.ended().await.success());
    let refused = rebuild(&system).await.expect_err("it would be counted twice");
    assert!(refused.contains("1 messages wait to be counted"), "{refused}");
    assert_eq!(counted().await, 1, "nothing was changed");
}

#[tokio::test]
async fn the_read_model_is_what_the_items_say_whatever_was_done_to_it() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let mut worker = system.worker().await;
    let (seller, ends_at) = (api.with_token(system.token("sam", "seller")), Utc::now() + TimeDelta::hours(1));
    let mut redis = administrator().await;
    let key = |item: &str| format!("{}:item:{item}", system.name());
    let mut items = Vec::new();
    for title in ["A lamp", "A chair", "A clock", "A table"] {
        items.push(seller.create(title, ends_at).await.item_id);
    }
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&items[0], 1_000).await.expect("accepted");
    for (item, version) in [(0, "2"), (1, "1"), (2, "1"), (3, "1")] {
        let mut held = redis::cmd("HGET");
        held.arg(key(&items[item])).arg("version");
        let held = || async { held.query_async::<Option<String>>(&mut redis.clone()).await.expect("read") };
        eventually("the read model follows", held, |held| held.as_deref() == Some(version)).await;
    }
    worker.terminate();
    assert!(worker.ended().await.success());

    // Forged, lost, of a time before, and as it should be.
    let mut forge = redis::cmd("HSET");
    forge.arg(key(&items[0])).arg("version").arg(9_000).arg("value").arg("x");
    forge.query_async::<()>(&mut redis).await.expect("written");
    redis::cmd("DEL").arg(key(&items[1])).query_async::<()>(&mut redis).await.expect("deleted");
    alice.bid(&items[2], 1_000).await.expect("accepted, and nobody tells the read model");
    let said = system.bidctl(&["--json", "rebuild", "read-model"]).await.expect("rebuilt");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said, serde_json::json!({ "items": 4, "missing": 1, "earlier": 1, "wrong": 1 }));
    for (item, version) in [(0, "2"), (1, "1"), (2, "2"), (3, "1")] {
        let mut held = redis::cmd("HGET");
        let held: String = held.arg(key(&items[item])).arg("version").query_async(&mut redis).await.expect("read");
        assert_eq!(held, version, "item {item}");
    }
    let said = system.bidctl(&["--json", "rebuild", "read-model"]).await.expect("rebuilt");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said, serde_json::json!({ "items": 4, "missing": 0, "earlier": 0, "wrong": 0 }));
}
