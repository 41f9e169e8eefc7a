//! Statistics made anew from the items and the ledger of bids, with events still on their way; the read model from the
//! items.
use crate::believing::administrator;
use chrono::{TimeDelta, Utc};
use gavel_tests::{System, atlas::check::DIFFERING, eventually, evolving::Operator};
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
    let (service, api) = system.service().await;
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
    let (operator, _worker) = (Operator::at(&system, &service).await, system.worker_with(REBUILDING, &[]).await);
    assert_eq!(counts(&read_model(&operator).await.expect("rebuilt")), [4, 1, 1, 1, 4, 0]);
    for (item, version) in [(0, "2"), (1, "1"), (2, "2"), (3, "1")] {
        let mut held = redis::cmd("HGET");
        let held: String = held.arg(key(&items[item])).arg("version").query_async(&mut redis).await.expect("read");
        assert_eq!(held, version, "item {item}");
    }
    assert_eq!(counts(&read_model(&operator).await.expect("rebuilt")), [4, 0, 0, 0, 4, 0]);
    let action = "SELECT count(*) FROM operator_actions
                  WHERE action = 'start_rebuild' AND operator_id = 'olga' AND reason = 'Redis was lost'";
    assert_eq!(system.count(action).await, 2);
}

/// What a worker runs that makes the read model anew and nothing else.
const REBUILDING: &[&str] = &["--only", "rebuild_read_model"];

/// What makes it anew, and shows how far that is.
const READ_MODEL: &[&str] = &["--json", "rebuild", "read-model", "--reason", "Redis was lost"];

async fn read_model(operator: &Operator<'_>) -> Result<Value, String> {
    Ok(serde_json::from_str(&operator.bidctl(READ_MODEL).await?).expect("JSON"))
}

fn counts(said: &Value) -> [i64; 6] {
    ["items", "missing", "earlier", "wrong", "checked", "wrong_again"].map(|of| said[of].as_i64().expect("a number"))
}

#[tokio::test]
async fn a_rebuild_goes_on_where_a_killed_worker_was_and_there_is_one_at_a_time() {
    let system = System::new().await;
    let (service, _api) = system.service().await;
    // More than two pages.
    system
        .run(
            "INSERT INTO items (item_id, seller_id, title, currency, start_price_minor, ladder_version, starts_at, ends_at)
             SELECT gen_random_uuid(), 'sam', 'A lamp', 'EUR', 1000, 1, now(), now() + interval '1 hour'
             FROM generate_series(1, 1200)",
        )
        .await;
    // One that nobody works at is waited for; who starts another sees that one.
    let operator = Operator::at(&system, &service).await;
    let first = operator.start_bidctl(READ_MODEL);
    let started = || system.count("SELECT count(*) FROM rebuilds");
    eventually("it is started", started, |count| *count == 1).await;
    let fault = [("GAVEL_FAILPOINTS", "rebuild_read_model.before_commit=abort@2"), ("GAVEL_LEASE_MS", "1500")];
    let mut doomed = system.start_worker(REBUILDING, &fault);
    assert!(!doomed.ended().await.success(), "it was meant to die in the second page");
    assert_eq!(system.count("SELECT items FROM rebuilds").await, 500, "the first page is noted, and no more");
    let second = operator.start_bidctl(READ_MODEL);
    let follows = || async { second.output() };
    eventually("it is told of the first", follows, |lines| lines.iter().any(|line| line.contains("under way"))).await;
    let _worker = system.worker_with(REBUILDING, &[("GAVEL_LEASE_MS", "1500")]).await;
    for mut watcher in [first, second] {
        assert!(watcher.ended().await.success(), "{:?}", watcher.output());
    }
    assert_eq!(started().await, 1);
    let whole =
        "SELECT count(*) FROM rebuilds WHERE state = 'done' AND items = 1200 AND missing = 700 AND checked = 1200
                 AND wrong = 0 AND wrong_again = 0";
    assert_eq!(system.count(whole).await, 1, "each item once; what was put right and not noted is right");
}

#[tokio::test]
async fn a_rebuild_whose_job_is_dead_says_so_and_another_may_be_started() {
    let system = System::new().await;
    let (service, _api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    let mut watcher = operator.start_bidctl(READ_MODEL);
    let job = || system.count("SELECT count(*) FROM rebuilds r JOIN mq_msgs m ON m.id = r.job_id");
    eventually("its job waits", job, |count| *count == 1).await;
    let job_id: String =
        sqlx::query_scalar("SELECT job_id::text FROM rebuilds").fetch_one(&system.db).await.expect("a job");
    operator.bidctl(&["queue", "cancel", &job_id, "--yes"]).await.expect("cancelled");
    assert!(!watcher.ended().await.success());
    let said = watcher.output();
    assert!(said.iter().any(|line| line.contains(&job_id) && line.contains("dead")), "{said:?}");
    let _worker = system.worker_with(REBUILDING, &[]).await;
    read_model(&operator).await.expect("another is made");
    assert_eq!(system.count("SELECT count(*) FROM rebuilds WHERE state = 'abandoned'").await, 1);
}

#[tokio::test]
async fn a_rebuild_waits_for_redis_however_long_that_takes_and_says_so() {
    let system = System::proxied().await;
    let (service, api) = system.service().await;
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let wire = system.cache_wire.as_ref().expect("a wire");
    wire.cut();
    let _worker = system.worker_with(REBUILDING, &[]).await;
    let operator = Operator::at(&system, &service).await;
    let mut watcher = operator.start_bidctl(READ_MODEL);
    let told = || async { watcher.output() };
    let says_why =
        |lines: &Vec<String>| lines.iter().any(|line| line.contains("0 items put right; unavailable: the cache"));
    eventually("it says what it waits for", told, says_why).await;
    let tries = "SELECT tries FROM mq_msgs WHERE channel_name = 'rebuild_read_model'";
    assert_eq!(system.count(&format!("SELECT ({tries})::bigint")).await, 0, "no try is used up");
    wire.mend();
    assert!(watcher.ended().await.success(), "{:?}", watcher.output());
    assert_eq!(
        system.count("SELECT count(*) FROM rebuilds WHERE state = 'done' AND missing = 1 AND why = ''").await,
        1
    );
}
