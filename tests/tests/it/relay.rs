//! A relay that dies between the broker's confirm and its own commit.
use chrono::{TimeDelta, Utc};
use gavel_proto::events_v1::ItemEvent;
use gavel_tests::{System, broker::Broker, eventually};

#[tokio::test]
async fn a_relay_killed_between_confirm_and_commit_publishes_again_and_nothing_counts_twice() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let broker = Broker::connect(&system.amqp_url).await;
    let mut doomed =
        system.start_worker(&["--only", "relay_outbox"], &[("GAVEL_FAILPOINTS", "relay_outbox.after_confirm=abort@2")]);
    doomed.ops_address().await;
    broker.tap("tap").await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let created = broker.take("tap", 1).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item.item_id, 1_500).await.expect("accepted");
    assert!(!doomed.ended().await.success(), "the relay was meant to die");
    let first = broker.take("tap", 1).await.remove(0);
    assert_ne!(created[0].properties.message_id(), first.properties.message_id());
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&system.db).await.expect("counted");
    assert_eq!(waiting, 1, "published, and still in the outbox");

    let again = broker.get("tap").await;
    assert!(again.is_none(), "nobody has published it a second time yet");
    let _relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let again = broker.take("tap", 1).await.remove(0);
    assert_eq!(again.properties.message_id(), first.properties.message_id(), "the same event under the same id");
    assert_eq!(again.data, first.data);
    let left = || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM outbox").fetch_one(&system.db).await.expect("counted")
    };
    eventually("the outbox is empty", left, |left| *left == 0).await;
    let (twice, _) = broker.depth("gavel.apply_user_stats").await;
    assert_eq!(twice, 2, "both copies wait for the consumer");
    system.consume_everything(&broker).await;
    let stats = alice.stats("").await.expect("alice may see it");
    assert_eq!(stats.stats[0].bids_placed, 1, "both copies count once");
}

#[tokio::test]
async fn events_of_an_item_go_out_in_the_order_in_which_they_happened() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let broker = Broker::connect(&system.amqp_url).await;
    broker.tap("tap").await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    for amount in 1..=9 {
        alice.bid(&item.item_id, amount * 1_000).await.expect("accepted");
    }
    // They wait for it together.
    let _relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let told = broker.take("tap", 10).await;
    let version = |data: &[u8]| <ItemEvent as prost::Message>::decode(data).expect("an event").version;
    let versions: Vec<_> = told.iter().map(|message| version(&message.data)).collect();
    assert!(versions.is_sorted(), "out of order: {versions:?}");
}

#[tokio::test]
async fn an_event_without_a_route_waits_with_its_error_and_goes_out_when_there_is_one() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let mut relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let broker = Broker::connect(&system.amqp_url).await;
    let seller = api.with_token(system.token("sam", "seller"));
    let first = seller.create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let left = || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM outbox").fetch_one(&system.db).await.expect("counted")
    };
    eventually("the first event finds its route", left, |left| *left == 0).await;

    relay.terminate();
    assert!(relay.ended().await.success());
    let second = seller.create("A second lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&second.item_id, 1_000).await.expect("accepted");
    // Of a later version, whose consumers are not there yet.
    let later = "UPDATE outbox SET routing_key = 'item.inspected' WHERE routing_key = 'item.created'";
    sqlx::query(later).execute(&system.db).await.expect("changed");
    let _relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let held = || async {
        sqlx::query_as::<_, (String, Option<String>)>("SELECT routing_key, last_error FROM outbox ORDER BY version")
            .fetch_all(&system.db)
            .await
            .expect("looked")
    };
    let held = eventually("the event is returned", held, |rows| rows.first().is_some_and(|row| row.1.is_some())).await;
    assert_eq!(held[0].0, "item.inspected");
    assert!(held[0].1.as_ref().is_some_and(|error| error.contains("no queue is bound")), "{held:?}");
    for amount in [1_000, 2_000] {
        alice.bid(&first.item_id, amount).await.expect("accepted");
        let others = || async {
            let others = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM outbox WHERE key <> $1");
            others.bind(&second.item_id).fetch_one(&system.db).await.expect("counted")
        };
        eventually("the other item's events flow", others, |left| *left == 0).await;
    }
    assert_eq!(left().await, 2, "the event without a route waits, and the one behind it");

    broker.tap("tap").await;
    eventually("everything goes out", left, |left| *left == 0).await;
    let mut versions = Vec::new();
    while let Some(message) = broker.get("tap").await {
        let event = <ItemEvent as prost::Message>::decode(&message.data[..]).expect("an event");
        if event.item.as_ref().is_some_and(|item| item.item_id == second.item_id) {
            versions.push(event.version);
        }
    }
    assert_eq!(versions.last(), Some(&2), "the bid is heard last: {versions:?}");
    assert!(versions.contains(&1), "after the creation: {versions:?}");
}

#[tokio::test]
async fn a_route_that_somebody_took_away_is_declared_again_and_the_event_goes_out() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let _worker = system.worker().await;
    let broker = Broker::connect(&system.amqp_url).await;
    let consumed = || async { broker.depth("gavel.project_item").await.1 };
    eventually("the worker has declared its queues", consumed, |consumers| *consumers == 1).await;
    broker.unbind("gavel.project_item", "item.created").await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let left = || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM outbox").fetch_one(&system.db).await.expect("counted")
    };
    eventually("it goes out", left, |left| *left == 0).await;
    assert_eq!(item.version, 1);
}
