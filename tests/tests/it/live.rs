//! Streams: what is watched arrives, in order and without a gap, whatever breaks in between.
use chrono::{TimeDelta, Utc};
use futures_util::StreamExt;
use gavel_proto::v1::{
    self, Heartbeat, ItemStatus, NoticeKind, StandingStatus, WatchItemResponse, WatchUserResponse,
    watch_item_response::Frame, watch_user_response,
};
use gavel_tests::{Api, System, claims};
use poem_grpc::{Code, Status, Streaming};
use std::time::Duration;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that watches an item, and checks that what comes is in order.
struct Watcher {
    stream: Streaming<WatchItemResponse>,
    version: i64,
    price: Option<i64>,
}

impl Watcher {
    async fn of(api: &Api, item: &str) -> Self {
        Self { stream: api.watch_item(item, 0).await.expect("watching"), version: 0, price: None }
    }

    /// The next frame; none at the end.
    async fn frame(&mut self) -> Result<Option<Frame>, Status> {
        let next = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("a frame or an end");
        let Some(response) = next.transpose()? else { return Ok(None) };
        let frame = response.frame.expect("a frame");
        match &frame {
            Frame::Snapshot(item) => (self.version, self.price) = (item.version, item.price_minor),
            Frame::Update(update) => {
                assert!(update.version > self.version, "{} came after {}", update.version, self.version);
                (self.version, self.price) = (update.version, update.price_minor);
            }
            Frame::Heartbeat(heartbeat) => assert_eq!(heartbeat.version, self.version),
        }
        Ok(Some(frame))
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Self, &Frame) -> bool) -> Frame {
        loop {
            let frame = self.frame().await.expect("the stream goes on").unwrap_or_else(|| panic!("{what}: the end"));
            if done(self, &frame) {
                return frame;
            }
        }
    }

    async fn heartbeat(&mut self, what: &str, done: impl Fn(&Heartbeat) -> bool) {
        self.until(what, |_, frame| matches!(frame, Frame::Heartbeat(heartbeat) if done(heartbeat))).await;
    }

    /// Until events come: before, what is committed may be seen with the next look at the database only.
    async fn fresh(mut self) -> Self {
        self.heartbeat("events come", |heartbeat| !heartbeat.stale).await;
        self
    }
}

async fn item_ending_in(system: &System, api: &Api, seconds: i64) -> String {
    let seller = api.with_token(system.token("sam", "seller"));
    seller.create("A lamp", Utc::now() + TimeDelta::seconds(seconds)).await.item_id
}

#[tokio::test]
async fn a_watcher_of_any_replica_sees_an_item_from_its_snapshot_to_its_end() {
    let system = System::new().await;
    let (_one, api) = system.service().await;
    let (_two, elsewhere) = system.service().await;
    let _worker = system.worker().await;
    let item = item_ending_in(&system, &api, 6).await;
    let mut here = Watcher::of(&api, &item).await.fresh().await;
    let mut there = Watcher::of(&elsewhere, &item).await.fresh().await;
    assert_eq!((here.version, here.price), (1, None));

    let alice = api.with_token(system.token("alice", "bidder"));
    for amount in [1_000, 1_500, 2_000] {
        let version = alice.bid(&item, amount).await.expect("accepted").sequence;
        for watcher in [&mut here, &mut there] {
            watcher.until("the bid", |seen, _| seen.version == version).await;
            assert_eq!(watcher.price, Some(amount));
        }
    }
    for watcher in [&mut here, &mut there] {
        let closed = |_: &Watcher, frame: &Frame| matches!(frame, Frame::Update(update) if update.status() == ItemStatus::Closed && update.next_minimum_minor == 0);
        watcher.until("the close", closed).await;
        assert_eq!(watcher.frame().await.expect("ended well"), None);
    }
    let mut late = Watcher::of(&api, &item).await;
    let snapshot = late.until("a snapshot", |_, frame| matches!(frame, Frame::Snapshot(_))).await;
    assert!(matches!(snapshot, Frame::Snapshot(item) if item.status() == ItemStatus::Closed && item.leader == "alice"));
}

#[tokio::test]
async fn watchers_of_a_scheduled_item_hear_when_bidding_begins() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let _worker = system.worker().await;
    let seller = api.with_token(system.token("sam", "seller"));
    let now = Utc::now();
    let at = |seconds| Some(prost_types::Timestamp { seconds: now.timestamp() + seconds, nanos: 0 });
    let request = v1::CreateItemRequest {
        idempotency_key: uuid::Uuid::new_v4().to_string(),
        title: "A lamp".to_owned(),
        currency: "EUR".to_owned(),
        start_price_minor: 1_000,
        starts_at: at(4),
        ends_at: at(3_600),
        ..v1::CreateItemRequest::default()
    };
    let item = seller.create_item(request).await.expect("published");
    assert_eq!((item.status(), item.next_minimum_minor), (ItemStatus::Scheduled, 1_000));
    let listed = |status: ItemStatus| {
        let request = v1::ListItemsRequest { status: status.into(), ..Default::default() };
        async { api.items(request).await.expect("a page").items.len() }
    };
    assert_eq!((listed(ItemStatus::Scheduled).await, listed(ItemStatus::Open).await), (1, 0));
    let early = api.with_token(system.token("alice", "bidder")).bid(&item.item_id, 1_000).await.expect_err("too early");
    assert!(early.message.ends_with('Z') && early.message.contains('T'), "a time of RFC 3339: {}", early.message);
    let mut watcher = Watcher::of(&api, &item.item_id).await;
    let scheduled = watcher.frame().await.expect("a frame").expect("no end");
    assert!(matches!(&scheduled, Frame::Snapshot(item) if item.status() == ItemStatus::Scheduled), "{scheduled:?}");
    let began = std::time::Instant::now();
    let is_open =
        |_: &Watcher, frame: &Frame| matches!(frame, Frame::Update(update) if update.status() == ItemStatus::Open);
    watcher.until("bidding has begun", is_open).await;
    assert!(began.elapsed() < Duration::from_secs(9), "by the event, and not by a heartbeat");
    assert_eq!(watcher.version, 2);
    assert_eq!((listed(ItemStatus::Scheduled).await, listed(ItemStatus::Open).await), (0, 1));
}

#[tokio::test]
async fn a_client_that_comes_back_gets_a_snapshot_only_where_it_missed_something() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item = item_ending_in(&system, &api, 3_600).await;
    let first = async |known| {
        let mut stream = api.watch_item(&item, known).await.expect("watching");
        stream.next().await.expect("a frame").expect("no error").frame.expect("a frame")
    };
    assert!(matches!(first(1).await, Frame::Heartbeat(heartbeat) if heartbeat.version == 1));
    api.with_token(system.token("alice", "bidder")).bid(&item, 1_000).await.expect("accepted");
    assert!(matches!(first(1).await, Frame::Snapshot(item) if item.version == 2));
    assert!(matches!(first(2).await, Frame::Heartbeat(heartbeat) if heartbeat.version == 2));
    assert!(matches!(first(9).await, Frame::Snapshot(item) if item.version == 2), "the database is right");
    let refused = api.watch_item(&item, -1).await.map(drop).expect_err("no version");
    assert!(refused.code == Code::InvalidArgument && refused.message.contains("known_version"), "{refused:?}");
    let nowhere = api.watch_item("00000000-0000-4000-8000-000000000000", 0).await.expect("opened");
    let missing = Watcher { stream: nowhere, version: 0, price: None }.frame().await.expect_err("no such item");
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn without_the_broker_streams_are_stale_and_slow_and_nothing_is_missing_when_it_is_back() {
    let system = System::proxied().await;
    let (_service, api) = system.service_with(&[("GAVEL_HEARTBEAT_MS", "300")]).await;
    let _worker = system.worker().await;
    let item = item_ending_in(&system, &api, 3_600).await;
    let mut watcher = Watcher::of(&api, &item).await.fresh().await;
    let wire = system.broker_wire.as_ref().expect("asked for");
    wire.cut();
    watcher.heartbeat("the loss is told", |heartbeat| heartbeat.stale).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let version = alice.bid(&item, 1_000).await.expect("bids need no broker").sequence;
    watcher.until("the database is looked at", |seen, _| seen.version == version).await;
    let mut newcomer = Watcher::of(&api, &item).await;
    newcomer.heartbeat("the newcomer is told", |heartbeat| heartbeat.stale && heartbeat.version == version).await;

    wire.mend();
    for watcher in [&mut watcher, &mut newcomer] {
        watcher.heartbeat("it is fresh again", |heartbeat| !heartbeat.stale).await;
    }
    let version = alice.bid(&item, 2_000).await.expect("accepted").sequence;
    for watcher in [&mut watcher, &mut newcomer] {
        watcher.until("events come again", |seen, _| seen.version == version).await;
    }
}

#[tokio::test]
async fn a_process_that_stops_sends_its_watchers_elsewhere() {
    let system = System::new().await;
    let (mut service, api) = system.service().await;
    let (_other, elsewhere) = system.service().await;
    let _worker = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let item = item_ending_in(&system, &api, 3_600).await;
    let mut watcher = Watcher::of(&api, &item).await.fresh().await;
    service.terminate();
    let ended = loop {
        if let Err(status) = watcher.frame().await {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    assert!(service.ended().await.success());
    let again = elsewhere.watch_item(&item, watcher.version).await.expect("watching");
    Watcher { stream: again, ..watcher }.heartbeat("nothing was missed", |heartbeat| heartbeat.version == 1).await;
}

#[tokio::test]
async fn watchers_are_counted_over_all_replicas() {
    let system = System::new().await;
    let (_one, api) = system.service().await;
    let (mut two, elsewhere) = system.service().await;
    let item = item_ending_in(&system, &api, 3_600).await;
    let mut here = Watcher::of(&api, &item).await;
    let mut there = vec![Watcher::of(&elsewhere, &item).await, Watcher::of(&elsewhere, &item).await];
    here.heartbeat("three", |heartbeat| heartbeat.watchers == Some(3)).await;
    there.pop();
    here.heartbeat("one has left", |heartbeat| heartbeat.watchers == Some(2)).await;
    two.kill();
    here.heartbeat("a replica that died counts no longer", |heartbeat| heartbeat.watchers == Some(1)).await;
}

#[tokio::test]
async fn a_user_hears_of_being_outbid_of_winning_and_of_what_is_due() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let _worker = system.worker().await;
    let item = item_ending_in(&system, &api, 8).await;
    let by = |user: &str| api.with_token(system.token(user, "bidder"));
    let (alice, bob) = (by("alice"), by("bob"));
    let mut watched = alice.watch_user("").await.expect("watching");
    until(
        &mut watched,
        "events come",
        |frame| matches!(frame, watch_user_response::Frame::Heartbeat(heartbeat) if !heartbeat.stale),
    )
    .await;
    alice.bid(&item, 1_000).await.expect("accepted");
    bob.bid(&item, 1_500).await.expect("accepted");
    let mut losing = bob.watch_user("").await.expect("watching");
    let outbid = notice(&mut watched, NoticeKind::Outbid).await;
    assert_eq!((outbid.item_id.as_str(), outbid.price_minor, outbid.version), (item.as_str(), 1_500, 3));
    // One who comes later is told how things stand.
    let standing = snapshot(&alice, |standing| standing == StandingStatus::Outbid).await;
    assert_eq!(standing.title, "A lamp");

    alice.bid(&item, 2_000).await.expect("accepted");
    let won = notice(&mut watched, NoticeKind::Won).await;
    assert_eq!((won.status(), won.next_minimum_minor), (StandingStatus::Won, 0));
    // Who was outbid hears of the end as well.
    let lost = notice(&mut losing, NoticeKind::Lost).await;
    assert_eq!((lost.status(), lost.item_id.as_str()), (StandingStatus::Lost, item.as_str()));
    let due = until(&mut watched, "the payment", |frame| matches!(frame, watch_user_response::Frame::Notice(_))).await;
    let watch_user_response::Frame::Notice(due) = due else { panic!("a notice") };
    assert_eq!((due.kind(), due.due_minor), (NoticeKind::PaymentDue, 2_000));
    snapshot(&alice, |standing| standing == StandingStatus::Won).await;
    // Who was away at the end finds it in what they are shown first.
    snapshot(&bob, |standing| standing == StandingStatus::Lost).await;
}

#[tokio::test]
async fn a_users_stream_ends_with_the_token() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    // Clocks may differ by five seconds: it holds for another two.
    let claims = claims("alice", &["bidder"], -3);
    let mut stream = api.with_token(system.sign(&claims)).watch_user("").await.expect("watching");
    let ended = loop {
        let next = tokio::time::timeout(PATIENCE, stream.next()).await.expect("it ends");
        if let Err(status) = next.expect("not with OK") {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
}

async fn until(
    stream: &mut Streaming<WatchUserResponse>,
    what: &str,
    done: impl Fn(&watch_user_response::Frame) -> bool,
) -> watch_user_response::Frame {
    loop {
        let next =
            tokio::time::timeout(PATIENCE, stream.next()).await.unwrap_or_else(|_| panic!("{what}: nothing came"));
        let frame = next.expect("the stream goes on").expect("no error").frame.expect("a frame");
        if done(&frame) {
            return frame;
        }
    }
}

async fn notice(stream: &mut Streaming<WatchUserResponse>, kind: NoticeKind) -> v1::Standing {
    let is = |frame: &watch_user_response::Frame| matches!(frame, watch_user_response::Frame::Notice(notice) if notice.kind() == kind);
    match until(stream, kind.as_str_name(), is).await {
        watch_user_response::Frame::Notice(notice) => notice.standing.expect("where the user stands"),
        other => panic!("{other:?}"),
    }
}

/// Asks again until the one item is in the snapshot like that: what a user bid on is known moments later.
async fn snapshot(api: &Api, is: impl Fn(StandingStatus) -> bool) -> v1::Standing {
    let look = || async {
        let mut stream = api.watch_user("").await.expect("watching");
        match stream.next().await.expect("a frame").expect("no error").frame {
            Some(watch_user_response::Frame::Snapshot(snapshot)) => snapshot.standings.into_iter().next(),
            other => panic!("{other:?} came first"),
        }
    };
    let found = gavel_tests::eventually("the standing", look, |standing| {
        standing.as_ref().is_some_and(|standing| is(standing.status()))
    });
    found.await.expect("a standing")
}
