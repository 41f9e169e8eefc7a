//! What others write into Redis and RabbitMQ is not believed for long, and what they may write there is little.
use crate::broker::doctor;
use chrono::{TimeDelta, Utc};
use futures_util::StreamExt;
use gavel_accounts::Program;
use gavel_proto::{
    events_v1::{BidAccepted, ItemEvent, ItemState, item_event::Fact},
    v1::{ReadSource, watch_item_response::Frame},
};
use gavel_tests::{Api, System, broker::Broker, eventually, servers::Servers};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions},
};
use prost::Message;
use redis::aio::MultiplexedConnection;
use std::time::Duration;
use uuid::Uuid;

async fn item(system: &System, api: &Api) -> String {
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id
}

async fn shown(api: &Api, item: &str) -> (ReadSource, i64, Option<i64>) {
    let reply = api.item(item).await.expect("shown");
    let source = reply.source();
    let item = reply.item.expect("an item");
    (source, item.version, item.price_minor)
}

/// A connection to Redis that may do anything.
pub(crate) async fn administrator() -> MultiplexedConnection {
    let client = redis::Client::open(Servers::of_this_run().redis).expect("Redis' URL");
    client.get_multiplexed_async_connection().await.expect("Redis answers")
}

#[tokio::test]
async fn an_older_event_after_a_newer_one_leaves_what_is_shown() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let broker = Broker::connect(&system.amqp_url).await;
    broker.tap("tap").await;
    let relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let item = item(&system, &api).await;
    api.with_token(system.token("alice", "bidder")).bid(&item, 1_500).await.expect("accepted");
    let [older, newer] = <[_; 2]>::try_from(broker.take("tap", 2).await).expect("two events");
    drop(relay);
    broker.purge("gavel.project_item").await;

    for event in [&newer, &older] {
        broker.replay(event).await;
        system.consume_everything(&broker).await;
    }
    let mut redis = administrator().await;
    let mut held = redis::cmd("HGET");
    held.arg(format!("{}:item:{item}", system.name())).arg("version");
    assert_eq!(held.query_async::<i64>(&mut redis).await.expect("read"), 2, "the older one did not overwrite it");
}

#[tokio::test]
async fn a_version_that_the_database_does_not_have_is_found_and_put_right() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let _worker = system.worker().await;
    let item = item(&system, &api).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item, 1_500).await.expect("accepted");
    let truth = (ReadSource::ReadModel, 2, Some(1_500));
    eventually("the read model has it", || shown(&api, &item), |seen| *seen == truth).await;

    // What anybody could who got hold of Redis: the value of another item, in a version that no event will ever reach.
    let mut redis = administrator().await;
    let key = format!("{}:item:{item}", system.name());
    let held: Vec<u8> = redis::cmd("HGET").arg(&key).arg("value").query_async(&mut redis).await.expect("read");
    assert!(!held.is_empty(), "the read model is where this test looks for it");
    let mut forged = ItemState::decode(&held[..]).expect("an item's state");
    forged.price_minor = Some(9);
    let forge = async |redis: &mut MultiplexedConnection| {
        let mut set = redis::cmd("HSET");
        set.arg(&key).arg("version").arg(9_000_000_000_000_000_i64).arg("value").arg(forged.encode_to_vec());
        set.query_async::<()>(redis).await.expect("written");
    };
    forge(&mut redis).await;
    eventually("the truth is shown", || shown(&api, &item), |seen| (seen.1, seen.2) == (2, Some(1_500))).await;
    eventually("from the read model as well", || shown(&api, &item), |seen| *seen == truth).await;
    alice.bid(&item, 2_000).await.expect("accepted");
    let truth = (ReadSource::ReadModel, 3, Some(2_000));
    eventually("and events move it on", || shown(&api, &item), |seen| *seen == truth).await;
}

#[tokio::test]
async fn what_is_no_value_of_ours_in_the_read_model_gives_way_and_stops_nobody() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let _worker = system.worker().await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let mut redis = administrator().await;
    let key = |item: &str| format!("{}:item:{item}", system.name());
    let (unreadable, mistyped) = (item(&system, &api).await, item(&system, &api).await);
    for item in [&unreadable, &mistyped] {
        eventually("it is there", || shown(&api, item), |seen| seen.0 == ReadSource::ReadModel).await;
        redis::cmd("DEL").arg(key(item)).query_async::<()>(&mut redis).await.expect("deleted");
    }
    let mut set = redis::cmd("HSET");
    set.arg(key(&unreadable)).arg("version").arg("abc").arg("value").arg("x");
    set.query_async::<()>(&mut redis).await.expect("written");
    redis::cmd("SET").arg(key(&mistyped)).arg("x").query_async::<()>(&mut redis).await.expect("written");
    for item in [&unreadable, &mistyped] {
        alice.bid(item, 1_500).await.expect("accepted");
        let truth = (ReadSource::ReadModel, 2, Some(1_500));
        eventually("the event has taken its place", || shown(&api, item), |seen| *seen == truth).await;
    }
    let parked = "SELECT count(*) FROM parked_messages";
    let parked: i64 = sqlx::query_scalar(parked).fetch_one(&system.db).await.expect("counted");
    assert_eq!(parked, 0, "no event was given up for it");
}

#[tokio::test]
async fn an_event_of_a_fact_that_this_version_does_not_know_is_put_aside_and_not_noted_as_counted() {
    let system = System::new().await;
    let _worker = system.worker().await;
    let broker = Broker::connect(&system.amqp_url).await;
    eventually("it consumes", || broker.depth("gavel.apply_user_stats"), |depth| depth.1 > 0).await;
    // What a newer version says in a field of its own, 99, of the events' contract.
    let mut event = ItemEvent { version: 2, item: Some(ItemState::default()), ..ItemEvent::default() }.encode_to_vec();
    event.extend([0x9a, 0x06, 0x00]);
    let id = Uuid::new_v4().to_string();
    broker.publish_typed("bid.accepted", &id, "gavel.events.v1.ItemEvent", &event).await;
    let parked = || async {
        let rows = "SELECT error, cardinality(unknown_to) FROM parked_messages WHERE handler = 'apply_user_stats'";
        sqlx::query_as::<_, (String, i32)>(rows).fetch_all(&system.db).await.expect("read")
    };
    let parked = eventually("it is parked", parked, |rows| !rows.is_empty()).await;
    assert!(parked.len() == 1 && parked[0].0.contains("unknown to this version") && parked[0].1 == 1, "{parked:?}");
    let inbox = "SELECT count(*) FROM inbox WHERE consumer = 'apply_user_stats'";
    let inbox: i64 = sqlx::query_scalar(inbox).fetch_one(&system.db).await.expect("counted");
    assert_eq!(inbox, 0, "a newer version will count it");
}

#[tokio::test]
async fn a_message_of_another_type_counts_for_nothing_and_moves_no_watcher() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let _worker = system.worker().await;
    let item = item(&system, &api).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item, 1_500).await.expect("accepted");
    let counted = || async { alice.stats("").await.expect("alice may").stats.first().map(|stats| stats.bids_placed) };
    eventually("the bid is counted", counted, |bids| *bids == Some(1)).await;
    let mut stream = api.watch_item(&item, 0).await.expect("watching");
    let first = stream.next().await.expect("a frame").expect("no error").frame;
    assert!(matches!(first, Some(Frame::Snapshot(item)) if item.version == 2));

    let broker = Broker::connect(&system.amqp_url).await;
    let bid = BidAccepted { bidder_id: "alice".to_owned(), ..BidAccepted::default() };
    let state = ItemState { item_id: item.clone(), currency: "EUR".to_owned(), ..ItemState::default() };
    let forged =
        ItemEvent { version: 77, item: Some(state), fact: Some(Fact::BidAccepted(bid)), ..ItemEvent::default() };
    let forged = forged.encode_to_vec();
    for message_type in ["gavel.events.v2.BidRetracted", ""] {
        broker.publish_typed("bid.accepted", &Uuid::new_v4().to_string(), message_type, &forged).await;
    }
    let parked = || async {
        let parked = "SELECT count(*) FROM parked_messages WHERE error LIKE '%type%'";
        sqlx::query_scalar::<_, i64>(parked).fetch_one(&system.db).await.expect("counted")
    };
    eventually("each consumer has parked both", parked, |parked| *parked == 4).await;
    assert_eq!(counted().await, Some(1), "neither is a bid");
    assert_eq!(shown(&api, &item).await.1, 2);
    let next = tokio::time::timeout(Duration::from_secs(3), async {
        loop {
            match stream.next().await.expect("the stream goes on").expect("no error").frame {
                Some(Frame::Heartbeat(_)) => {}
                other => break other,
            }
        }
    });
    assert!(next.await.is_err(), "nobody was told of a version that there is not");
    assert!(
        doctor(&system, &[], &service)
            .await
            .iter()
            .any(|finding| finding["what"] == "parked messages" && finding["ok"] == false)
    );
}

/// As one of the programs, over a channel with confirms.
async fn connected(system: &System, program: Program) -> lapin::Channel {
    let variables = match program {
        Program::Service => system.service_variables(&[]),
        Program::Worker => system.variables(&[]),
    };
    let url = variables.into_iter().find(|(name, _)| name == "AMQP_URL").expect("a URL").1;
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.expect("it may connect");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    // Dropped, it would close its channels.
    std::mem::forget(connection);
    channel
}

#[tokio::test]
async fn the_service_may_neither_publish_an_event_nor_take_a_message_from_a_consumer() {
    let system = System::new().await;
    let _worker = system.worker().await;
    let is_refused =
        |error: lapin::Error| error.to_string().contains("ACCESS_REFUSED") || error.to_string().contains("403");
    let publish = async |program| {
        let channel = connected(&system, program).await;
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("gavel.events".into(), "bid.accepted".into(), options, b"", properties).await?.await
    };
    assert!(publish(Program::Service).await.is_err_and(is_refused), "the service may not");
    publish(Program::Worker).await.expect("the worker may");
    let channel = connected(&system, Program::Service).await;
    let taken = channel.basic_get("gavel.apply_user_stats".into(), BasicGetOptions { no_ack: true }).await;
    assert!(taken.is_err_and(is_refused));
}

#[tokio::test]
async fn an_account_at_redis_reaches_its_own_keys_and_no_dangerous_command() {
    let system = System::new().await;
    for variables in [system.service_variables(&[]), system.variables(&[])] {
        let url = variables.into_iter().find(|(name, _)| name == "REDIS_URL").expect("a URL").1;
        let client = redis::Client::open(url).expect("a URL");
        let mut account = client.get_multiplexed_async_connection().await.expect("it may connect");
        let mut asked = async |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            for word in &words[1..] {
                command.arg(*word);
            }
            command.query_async::<redis::Value>(&mut account).await
        };
        let own = format!("{}:item:1", system.name());
        asked(&["HSET", &own, "version", "1"]).await.expect("its own keys");
        for refused in [
            &["HGET", "gavel:item:1", "version"][..],
            &["HSET", "other:item:1", "version", "1"],
            &["FLUSHALL"],
            &["KEYS", "*"],
            &["CONFIG", "GET", "*"],
            &["ACL", "LIST"],
        ] {
            let error = asked(refused).await.expect_err("it may not");
            assert_eq!(error.code(), Some("NOPERM"), "{refused:?}: {error}");
        }
    }
}
