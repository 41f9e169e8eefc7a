//! A relay that dies between the broker's confirm and its own commit.
use chrono::{TimeDelta, Utc};
use gavel_tests::{System, broker::Broker, eventually};

#[tokio::test]
async fn a_relay_killed_between_confirm_and_commit_publishes_again_and_nothing_counts_twice() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let broker = Broker::connect(&system.amqp_url).await;
    let mut doomed =
        system.start_worker(&["--only", "relay_outbox"], &[("GAVEL_FAULT", "relay_outbox.after_confirm=abort@2")]);
    doomed.address().await;
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

    let _worker = system.worker().await;
    let again = broker.take("tap", 1).await.remove(0);
    assert_eq!(again.properties.message_id(), first.properties.message_id(), "the same event under the same id");
    assert_eq!(again.data, first.data);
    let counted = || async {
        sqlx::query_as::<_, (i64, i64)>("SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM inbox)")
            .fetch_one(&system.db)
            .await
            .expect("counted")
    };
    eventually("the outbox is empty and the bid counted", counted, |seen| *seen == (0, 1)).await;
    let stats = alice.stats("").await.expect("alice may see it");
    assert_eq!(stats.stats[0].bids_placed, 1);
}
