//! Without RabbitMQ bids are taken; without Redis items are shown.
use chrono::{TimeDelta, Utc};
use gavel_proto::{
    events_v1::{BidAccepted, ItemEvent, ItemState, item_event::Fact},
    v1::ReadSource,
};
use gavel_tests::{Process, System, broker::Broker, eventually, private::Redis};
use poem_grpc::Code;
use prost::Message;
use serde_json::Value;
use uuid::Uuid;

#[tokio::test]
async fn without_the_broker_bids_are_taken_and_the_outbox_drains_when_it_is_back() {
    let system = System::proxied().await;
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
async fn a_database_that_hangs_up_on_everybody_is_unavailable_and_no_messages_fault() {
    let system = System::proxied().await;
    let (_service, api) = system.service().await;
    let broker = Broker::connect(&system.amqp_url).await;
    let relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let consumer = system.worker_with(&["--only", "apply_user_stats"], &[]).await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let wire = system.database_wire.as_ref().expect("asked for");
    eventually("the creation is relayed", || async { outbox(&system).await }, |left| *left == 0).await;
    drop(relay);
    alice.bid(&item.item_id, 1_000).await.expect("accepted");

    // As a balancer without a server behind it: it takes connections, and ends them.
    wire.hang_up();
    let failure = alice.bid(&item.item_id, 2_000).await.expect_err("nobody can be asked");
    assert_eq!(failure.code, Code::Unavailable, "{failure:?}");
    // More tries than a message has that is to blame itself.
    broker.publish("bid.accepted", &Uuid::new_v4().to_string(), &bid_of_nobody(&item.item_id)).await;
    let tries = || async {
        let failed = |line: &&Value| line["handler"] == "apply_user_stats" && line["outcome"] == "unavailable";
        consumer.log().iter().filter(failed).count()
    };
    eventually("it is tried again and again", tries, |tries| *tries > 6).await;
    wire.mend();
    let counted = || system.count("SELECT count(*) FROM user_stats WHERE user_id = 'nobody' AND bids_placed = 1");
    eventually("it is counted", counted, |users| *users == 1).await;
    assert_eq!(system.count("SELECT count(*) FROM parked_messages").await, 0);
}

/// An event as the relay publishes it.
fn bid_of_nobody(item_id: &str) -> Vec<u8> {
    let item = ItemState { item_id: item_id.to_owned(), currency: "EUR".to_owned(), ..ItemState::default() };
    let fact = BidAccepted { bid_id: Uuid::new_v4().to_string(), bidder_id: "nobody".to_owned(), ..Default::default() };
    let event_id = Uuid::new_v4().to_string();
    let fact = Some(Fact::BidAccepted(fact));
    ItemEvent { event_id, version: 9, item: Some(item), fact, ..ItemEvent::default() }.encode_to_vec()
}

#[tokio::test]
async fn without_the_cache_items_are_read_from_the_database() {
    let system = System::proxied().await;
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

/// From where the item is shown, and in which version.
async fn shown(api: &gavel_tests::Api, item: &str) -> (ReadSource, i64) {
    let reply = api.item(item).await.expect("the item is shown");
    (reply.source(), reply.item.expect("an item").version)
}

async fn a_cache_without_writes_is_not_read(ail: impl AsyncFn(&Redis), mend: impl AsyncFn(&Redis), says: &str) {
    let (system, cache) = (System::new().await, Redis::start().await);
    let variables = [("REDIS_URL", cache.url.as_str())];
    let (service, api) = system.service_with(&variables).await;
    let worker = system.worker_with(&[], &variables).await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let id = item.item_id;
    eventually("the read model has it", || shown(&api, &id), |seen| *seen == (ReadSource::ReadModel, 1)).await;
    ail(&cache).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let mut version = 1;
    for process in [&service, &worker] {
        let noticed = || readyz(process);
        let is_said =
            |(_, ready): &(u16, Value)| ready["cache"]["problem"].as_str().is_some_and(|why| why.contains(says));
        let (status, _) = eventually("it is noticed, and why", noticed, is_said).await;
        assert_eq!(status, 200, "nobody needs it");
    }
    for amount in [1_000, 2_000, 3_000] {
        version = alice.bid(&id, amount).await.expect("bids need no cache").sequence;
        assert_eq!(shown(&api, &id).await, (ReadSource::Database, version), "an old price is never shown");
    }
    mend(&cache).await;
    let back = |seen: &(ReadSource, i64)| *seen == (ReadSource::ReadModel, version);
    eventually("it is read again, and holds the newest", || shown(&api, &id), back).await;
    for process in [&service, &worker] {
        eventually("it is up again", || readyz(process), |(_, ready)| ready["cache"]["up"] == true).await;
    }
}

#[tokio::test]
async fn a_demoted_cache_is_not_read_and_comes_back() {
    let (demote, promote) = (async |cache: &Redis| cache.demote().await, async |cache: &Redis| cache.promote().await);
    a_cache_without_writes_is_not_read(demote, promote, "replica").await;
}

#[tokio::test]
async fn a_full_cache_is_not_read_and_comes_back() {
    let fill = async |cache: &Redis| cache.set("maxmemory", "1").await;
    let mend = async |cache: &Redis| cache.set("maxmemory", "0").await;
    a_cache_without_writes_is_not_read(fill, mend, "full").await;
}
