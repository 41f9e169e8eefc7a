//! One correlation id, from the request's header to the consumer's log line.
use chrono::{TimeDelta, Utc};
use gavel_tests::{
    Process, System,
    broker::{Broker, header},
    eventually,
};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn one_correlation_id_is_in_the_log_the_outbox_the_message_and_the_consumers_log() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let id = format!("test-{}", system.name());
    let alice = api.with_token(system.token("alice", "bidder"));
    let alice = alice.with_header("x-correlation-id", &id).with_header("traceparent", TRACEPARENT);
    alice.bid(&item.item_id, 1_000).await.expect("accepted");

    eventually("the request's log line", || async { logged(&service, &id, "place_bid") }, |found| *found).await;
    let (in_outbox, traceparent): (String, String) =
        sqlx::query_as("SELECT correlation_id, traceparent FROM outbox WHERE routing_key = 'bid.accepted'")
            .fetch_one(&system.db)
            .await
            .expect("the event waits: no relay runs yet");
    assert_eq!(in_outbox, id);
    assert_eq!(traceparent[3..35], TRACEPARENT[3..35], "the same trace");

    let consumers = system.worker_with(&["--only", "apply_user_stats,project_item"], &[]).await;
    let broker = Broker::connect(&system.amqp_url).await;
    broker.tap("tap").await;
    let _relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let messages = broker.take("tap", 2).await;
    let bid = messages.iter().find(|message| message.routing_key.as_str() == "bid.accepted").expect("the bid's event");
    assert_eq!(header(bid, "x-correlation-id").as_deref(), Some(id.as_str()));
    assert!(header(bid, "traceparent").is_some_and(|parent| parent[3..35] == TRACEPARENT[3..35]));
    for consumer in ["apply_user_stats", "project_item"] {
        eventually("the consumer's log line", || async { logged(&consumers, &id, consumer) }, |found| *found).await;
    }
    let refused = alice.bid(&item.item_id, 1).await.expect_err("too low");
    assert_eq!(refused.correlation_id.as_deref(), Some(id.as_str()), "a refusal says it too");
}

fn logged(process: &Process, correlation_id: &str, handler: &str) -> bool {
    process.log().iter().any(|line| {
        // The events before this one may have been consumed in the same batch: its line has all their ids.
        let batch = line["correlation_ids"].as_str().unwrap_or_default();
        let is_its_line = line["correlation_id"] == correlation_id || batch.split(' ').any(|id| id == correlation_id);
        is_its_line && line["handler"] == handler && line["outcome"] == "ok"
    })
}
