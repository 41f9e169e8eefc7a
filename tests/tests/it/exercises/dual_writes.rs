//! What a message says besides its payload comes out of the outbox as well: whoever publishes it again says the same.
use chrono::{TimeDelta, Utc};
use gavel_tests::{
    System,
    broker::{Broker, header},
};

#[tokio::test]
#[ignore = "waits for the exercise of milestone 3"]
async fn a_message_says_which_version_it_tells_of_and_so_does_its_copy() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let broker = Broker::connect(&system.amqp_url).await;
    let mut doomed =
        system.start_worker(&["--only", "relay_outbox"], &[("GAVEL_FAILPOINTS", "relay_outbox.after_confirm=abort@2")]);
    doomed.ops_address().await;
    broker.tap("tap").await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let created = broker.take("tap", 1).await.remove(0);
    assert_eq!(
        header(&created, "gavel-version").as_deref(),
        Some("1"),
        "a message has the header gavel-version, the version in its row of the outbox"
    );
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item.item_id, 1_500).await.expect("accepted");
    assert!(!doomed.ended().await.success(), "the relay was meant to die");
    let first = broker.take("tap", 1).await.remove(0);
    let _relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let again = broker.take("tap", 1).await.remove(0);
    assert_eq!(first.properties.message_id(), again.properties.message_id());
    let versions = [&first, &again].map(|message| header(message, "gavel-version"));
    assert_eq!(versions, [Some("2".to_owned()), Some("2".to_owned())], "the copy says what the first said");
}
