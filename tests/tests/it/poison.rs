//! A message nobody can handle goes to the parking queue with its error; the others flow.
use chrono::{TimeDelta, Utc};
use gavel_tests::{
    System,
    broker::{Broker, header},
    eventually,
};
use uuid::Uuid;

#[tokio::test]
async fn a_poisonous_message_is_parked_with_its_error_and_holds_nobody_up() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let _worker = system.worker().await;
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item.item_id, 1_000).await.expect("accepted");
    let counted = |bids: i64| {
        move |reply: &Result<gavel_proto::v1::GetUserStatsResponse, gavel_tests::Failure>| {
            reply.as_ref().is_ok_and(|reply| reply.stats.first().is_some_and(|stats| stats.bids_placed == bids))
        }
    };
    eventually("the worker consumes", || alice.stats(""), counted(1)).await.expect("alice may see it");

    let broker = Broker::connect(&system.amqp_url).await;
    let id = Uuid::new_v4().to_string();
    broker.publish("item.closed", &id, b"\xff\xff this is no protobuf").await;
    alice.bid(&item.item_id, 2_000).await.expect("accepted");
    eventually("the bid behind it is counted", || alice.stats(""), counted(2)).await.expect("alice may see it");

    let mut parked_by = Vec::new();
    for _ in 0..2 {
        let message = eventually("it is parked", || broker.get("gavel.parked"), Option::is_some).await.expect("parked");
        assert_eq!(message.properties.message_id().as_ref().map(ToString::to_string), Some(id.clone()));
        assert_eq!(message.data, b"\xff\xff this is no protobuf");
        let error = header(&message, "x-parked-error").expect("why");
        assert!(error.contains("can't be decoded"), "{error}");
        parked_by.push(header(&message, "x-parked-by").expect("by whom"));
    }
    parked_by.sort();
    assert_eq!(parked_by, ["apply_user_stats", "project_item"], "each consumer parks its own copy");
}
