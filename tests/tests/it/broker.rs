//! What an unlucky administrator does to RabbitMQ: an exchange or a queue deleted and declared again, one declared
//! otherwise, a message it does not take, two versions of a worker.
use chrono::{TimeDelta, Utc};
use futures_util::StreamExt;
use gavel_proto::v1::{WatchItemResponse, watch_item_response::Frame};
use gavel_tests::{Api, Process, System, broker::Broker, eventually, process::binary, system::CONSUMER_QUEUES};
use poem_grpc::Streaming;
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

async fn item(system: &System, api: &Api) -> String {
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id
}

async fn counted(api: &Api) -> i64 {
    let reply = api.stats("").await.expect("one's own figures");
    reply.stats.first().map_or(0, |stats| stats.bids_placed)
}

async fn frame(stream: &mut Streaming<WatchItemResponse>) -> Frame {
    let next = tokio::time::timeout(PATIENCE, stream.next()).await.expect("a frame");
    next.expect("the stream goes on").expect("no error").frame.expect("a frame")
}

/// Waits for a heartbeat that says so.
async fn until_stale(stream: &mut Streaming<WatchItemResponse>, stale: bool) {
    while !matches!(frame(stream).await, Frame::Heartbeat(heartbeat) if heartbeat.stale == stale) {}
}

#[tokio::test]
async fn watchers_of_a_queue_that_nothing_leads_to_any_more_are_told_and_hear_again() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let _worker = system.worker().await;
    let item = item(&system, &api).await;
    let mut stream = api.watch_item(&item, 0).await.expect("watching");
    until_stale(&mut stream, false).await;
    Broker::connect(&system.amqp_url).await.replace_events().await;
    until_stale(&mut stream, true).await;
    until_stale(&mut stream, false).await;
    let bidder = api.with_token(system.token("alice", "bidder"));
    let version = bidder.bid(&item, 1_000).await.expect("accepted").sequence;
    while !matches!(frame(&mut stream).await, Frame::Update(update) if update.version == version) {}
    eventually("consumers are led to again as well", || counted(&bidder), |bids| *bids == 1).await;
}

#[tokio::test]
async fn a_consumer_whose_queue_was_deleted_and_declared_again_at_once_comes_back() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let _worker = system.worker().await;
    let item = item(&system, &api).await;
    let bidder = api.with_token(system.token("alice", "bidder"));
    bidder.bid(&item, 1_000).await.expect("accepted");
    eventually("the consumer consumes", || counted(&bidder), |bids| *bids == 1).await;
    let broker = Broker::connect(&system.amqp_url).await;
    broker.replace(CONSUMER_QUEUES[0], &["bid.accepted", "item.closed"]).await;
    bidder.bid(&item, 2_000).await.expect("accepted");
    eventually("it consumes again", || counted(&bidder), |bids| *bids == 2).await;
}

#[tokio::test]
async fn a_queue_that_is_there_with_other_arguments_stops_its_own_consumer_and_no_other() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let broker = Broker::connect(&system.amqp_url).await;
    broker.declare_otherwise("gavel.project_item").await;
    let _worker = system.worker().await;
    let item = item(&system, &api).await;
    let bidder = api.with_token(system.token("alice", "bidder"));
    bidder.bid(&item, 1_000).await.expect("accepted");
    eventually("the other consumer goes on", || counted(&bidder), |bids| *bids == 1).await;

    let findings = doctor(&system, &[], &service).await;
    let wrong = findings.iter().find(|finding| finding["what"] == "queue gavel.project_item").expect("it is named");
    assert_eq!(wrong["ok"], false, "{wrong}");
    broker.delete("gavel.project_item").await;
    let is_read_model = || async { api.item(&item).await.expect("shown").source() };
    let read_model = gavel_proto::v1::ReadSource::ReadModel;
    eventually("it is declared, and the read model follows", is_read_model, |source| *source == read_model).await;
}

#[tokio::test]
async fn an_exchange_for_parking_that_is_there_as_another_stops_no_event() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let broker = Broker::connect(&system.amqp_url).await;
    broker.declare_exchange_otherwise("gavel.parking").await;
    let _worker = system.worker().await;
    let item = item(&system, &api).await;
    let bidder = api.with_token(system.token("alice", "bidder"));
    bidder.bid(&item, 1_000).await.expect("accepted");
    eventually("bids are counted", || counted(&bidder), |bids| *bids == 1).await;
}

/// Returns what `bidctl doctor` finds.
pub(crate) async fn doctor(system: &System, variables: &[(&str, &str)], service: &Process) -> Vec<Value> {
    let (url, ops_url) = (service.address().await, service.ops_address().await);
    let arguments = ["doctor", "--json", "--url", &format!("http://{url}"), "--ops-url", &format!("http://{ops_url}")];
    let mut bidctl = Process::start(&binary("bidctl"), &arguments, &system.variables(variables));
    bidctl.ended().await;
    let said = bidctl.output().join("\n");
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    said["findings"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn an_event_that_the_broker_does_not_take_is_held_back_with_its_reason_and_holds_up_no_other() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let (heavy, light) = (item(&system, &api).await, item(&system, &api).await);
    let bidder = api.with_token(system.token("alice", "bidder"));
    for item in [&heavy, &light] {
        bidder.bid(item, 1_000).await.expect("accepted");
    }
    // No handler could emit it: the runtime's own limit is far below the broker's. Somebody's SQL could.
    let swollen = "UPDATE outbox SET payload = decode(repeat('00', 2 * 1024 * 1024), 'hex')
                   WHERE key = $1 AND routing_key = 'bid.accepted'";
    let swollen = sqlx::query(swollen).bind(&heavy).execute(&system.db).await.expect("swollen");
    assert_eq!(swollen.rows_affected(), 1);
    bidder.bid(&heavy, 2_000).await.expect("accepted");
    let _worker = system.worker().await;
    eventually("the other item's bid is counted", || counted(&bidder), |bids| *bids >= 1).await;
    let held_back = || async {
        let held = "SELECT key, attempts, last_error FROM outbox WHERE retry_at IS NOT NULL";
        sqlx::query_as::<_, (String, i32, String)>(held).fetch_all(&system.db).await.expect("read")
    };
    let held = eventually("it is held back", held_back, |held| !held.is_empty()).await;
    assert_eq!((held.len(), &held[0].0), (1, &heavy));
    assert!(held[0].2.contains("size") || held[0].2.contains("large"), "{}", held[0].2);
    let later = item(&system, &api).await;
    bidder.bid(&later, 1_000).await.expect("accepted");
    eventually("what comes later goes out as well", || counted(&bidder), |bids| *bids >= 2).await;

    // Each of these is a round of the relay; meanwhile it has been tried after one second, two, four.
    for amount in 2..=12 {
        bidder.bid(&later, amount * 1_000).await.expect("accepted");
        eventually("it goes out", || counted(&bidder), |bids| *bids > amount).await;
    }
    let too_often = "SELECT count(*) FROM outbox
                     WHERE retry_at IS NOT NULL AND attempts > 1 + extract(epoch FROM clock_timestamp() - created_at)";
    let too_often: i64 = sqlx::query_scalar(too_often).fetch_one(&system.db).await.expect("counted");
    assert_eq!(too_often, 0, "it is tried again and again");
    assert_eq!(held_back().await.len(), 1, "and it is there yet");
}

fn probe(system: &System, version: &str) -> Process {
    Process::start(&binary("probe-worker"), &[], &system.variables(&[("PROBE_VERSION", version)]))
}

/// Handler, and how many versions did not know it.
async fn unknown(system: &System) -> Vec<(String, i32)> {
    let rows = "SELECT handler, cardinality(unknown_to) FROM parked_messages ORDER BY handler";
    sqlx::query_as(rows).fetch_all(&system.db).await.expect("read")
}

#[tokio::test]
async fn what_an_older_version_does_not_know_is_left_for_a_newer_one_and_counts_once() {
    let system = System::new().await;
    for statement in crate::probe::TABLES {
        sqlx::query(statement).execute(&system.db).await.expect("made");
    }
    let old = probe(&system, "1");
    old.ops_address().await;
    let broker = Broker::connect(&system.amqp_url).await;
    let is_there = || async { broker.depth("gavel.heard").await.1 };
    eventually("the older version consumes", is_there, |consumers| *consumers > 0).await;
    let id = Uuid::new_v4().to_string();
    broker.publish_typed("probe.worked", &id, "google.protobuf.Duration", &[]).await;
    let parked = eventually("it is parked", || unknown(&system), |rows| !rows.is_empty()).await;
    assert_eq!(parked, [("heard".to_owned(), 1)]);
    let inbox: i64 = sqlx::query_scalar("SELECT count(*) FROM inbox").fetch_one(&system.db).await.expect("counted");
    assert_eq!(inbox, 0, "it is not noted as handled");

    let _new = probe(&system, "2");
    let heard = || async {
        let heard = "SELECT count(*) FROM notes WHERE text = 'heard by version 2'";
        sqlx::query_scalar::<_, i64>(heard).fetch_one(&system.db).await.expect("counted")
    };
    eventually("the newer version handles it", heard, |heard| *heard == 1).await;
    eventually("nothing is parked any more", || unknown(&system), Vec::is_empty).await;
    broker.publish_typed("probe.worked", &id, "google.protobuf.Duration", &[]).await;
    let waiting = || async { (broker.depth("gavel.heard").await.0, unknown(&system).await.len()) };
    eventually("a copy of it is handled", waiting, |left| *left == (0, 0)).await;
    assert_eq!(heard().await, 1, "it counts once");
}
