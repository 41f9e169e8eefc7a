//! Without RabbitMQ bids are taken; without Redis items are shown.
use chrono::{TimeDelta, Utc};
use gavel_proto::v1::ReadSource;
use gavel_tests::{Options, Process, System, eventually};
use serde_json::Value;

#[tokio::test]
async fn without_the_broker_bids_are_taken_and_the_outbox_drains_when_it_is_back() {
    let system = System::with(Options { proxied: true }).await;
    let (service, api) = system.service().await;
    let worker = system.worker().await;
    let wire = system.broker_wire.as_ref().expect("asked for");
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    eventually("the broker is up", || readyz(&service), |(_, ready)| ready["broker"]["up"] == true).await;

    let waiting = || async { outbox(&system).await };
    eventually("the creation is relayed", waiting, |left| *left == 0).await;
    wire.cut();
    let alice = api.with_token(system.token("alice", "bidder"));
    for amount in [1_000, 2_000, 3_000] {
        alice.bid(&item.item_id, amount).await.expect("bids need no broker");
    }
    let down =
        eventually("the loss is noticed", || readyz(&service), |(_, ready)| ready["broker"]["up"] == false).await;
    assert_eq!((down.0, &down.1["ready"]), (200, &Value::Bool(true)), "ready for bids: {}", down.1);
    assert!(down.1["broker"]["problem"].as_str().is_some_and(|problem| problem.contains("RabbitMQ")), "{}", down.1);
    eventually("the worker is not ready", || readyz(&worker), |(status, _)| *status == 503).await;
    assert_eq!(waiting().await, 3, "the events wait");

    wire.mend();
    eventually("the outbox drains", waiting, |left| *left == 0).await;
    let counted = |reply: &Result<gavel_proto::v1::GetUserStatsResponse, _>| {
        reply.as_ref().is_ok_and(|reply| reply.stats.first().is_some_and(|stats| stats.bids_placed == 3))
    };
    eventually("the bids are counted", || alice.stats(""), counted).await.expect("alice may see it");
    eventually("the worker is ready again", || readyz(&worker), |(status, _)| *status == 200).await;
}

#[tokio::test]
async fn without_the_cache_items_are_read_from_the_database() {
    let system = System::with(Options { proxied: true }).await;
    let (service, api) = system.service().await;
    let _worker = system.worker().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let source = || async { api.item(&item.item_id).await.expect("the item is shown").source() };
    eventually("the read model has it", source, |source| *source == ReadSource::ReadModel).await;

    let wire = system.cache_wire.as_ref().expect("asked for");
    wire.cut();
    assert_eq!(source().await, ReadSource::Database);
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item.item_id, 1_000).await.expect("bids need no cache");
    assert_eq!(api.item(&item.item_id).await.expect("shown").item.expect("an item").version, 2);
    let (status, ready) =
        eventually("the loss is noticed", || readyz(&service), |(_, ready)| ready["cache"]["up"] == false).await;
    assert_eq!((status, &ready["cache"]["required"]), (200, &false.into()));

    wire.mend();
    let version = || async {
        let reply = api.item(&item.item_id).await.expect("the item is shown");
        (reply.source(), reply.item.expect("an item").version)
    };
    eventually("the read model catches up", version, |seen| *seen == (ReadSource::ReadModel, 2)).await;
}

async fn outbox(system: &System) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&system.db).await.expect("counted")
}

async fn readyz(process: &Process) -> (u16, Value) {
    let url = format!("http://{}/readyz", process.ops_address().await);
    let reply = reqwest::get(url).await.expect("the process answers");
    (reply.status().as_u16(), reply.json().await.expect("JSON"))
}
