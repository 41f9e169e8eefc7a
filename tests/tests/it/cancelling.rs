//! Items that are cancelled: by whom, and who hears of it.
use chrono::{TimeDelta, Utc};
use futures_util::StreamExt;
use gavel_proto::v1::{
    BidRefusalReason, CreateItemRequest, ItemStatus, ListItemsRequest, NoticeKind, StandingStatus, WatchUserResponse,
    watch_item_response, watch_user_response,
};
use gavel_tests::{Api, System, eventually};
use poem_grpc::{Code, Status};
use uuid::Uuid;

async fn item(system: &System, api: &Api) -> String {
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id
}

#[tokio::test]
async fn a_seller_cancels_while_there_is_no_bid_and_an_operator_with_a_reason() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let by = |user: &str, role: &str| api.with_token(system.token(user, role));
    let (free, contested) = (item(&system, &api).await, item(&system, &api).await);
    assert_eq!(by("eve", "seller").cancel(&free, "").await.expect_err("another's").code, Code::PermissionDenied);
    assert_eq!(by("olga", "ops").cancel(&free, "").await.expect_err("no reason").code, Code::PermissionDenied);
    let hidden = by("olga", "ops").cancel(&free, "\u{200B}").await.expect_err("nothing to be seen");
    assert_eq!(hidden.code, Code::InvalidArgument);
    assert!(hidden.message.starts_with("reason "), "{hidden:?}");
    let cancelled = by("sam", "seller").cancel(&free, "").await.expect("no bid yet");
    assert_eq!(
        (cancelled.status(), cancelled.version, cancelled.cancel_reason.as_deref()),
        (ItemStatus::Cancelled, 2, Some(""))
    );
    assert_eq!(cancelled.next_minimum_minor, 0);
    let again = by("sam", "seller").cancel(&free, "").await.expect_err("it is over");
    assert_eq!(again.code, Code::FailedPrecondition);

    by("ann", "bidder").bid(&contested, 1_000).await.expect("accepted");
    let refused = by("sam", "seller").cancel(&contested, "").await.expect_err("there is a bid");
    assert!(refused.code == Code::FailedPrecondition && refused.message.contains("operator"), "{refused:?}");
    let cancelled = by("olga", "ops").cancel(&contested, "a fake").await.expect("for a reason");
    assert_eq!((cancelled.status(), cancelled.version), (ItemStatus::Cancelled, 3));
    let audit = "SELECT operator_id, action, target, reason FROM operator_actions WHERE operator_id <> 'migrate'";
    let audit: Vec<(String, String, String, String)> =
        sqlx::query_as(audit).fetch_all(&system.db).await.expect("the audit");
    let by_olga = ["olga", "cancel_item", &contested, "a fake"].map(str::to_owned);
    assert_eq!(audit, [by_olga.into()], "the operator's alone");
    for item in [&free, &contested] {
        let late = by("bob", "bidder").bid(item, 5_000).await.expect_err("it is over");
        assert_eq!(late.refused.expect("it says why").reason(), BidRefusalReason::Ended);
    }
    let listed = async |status: ItemStatus| {
        let page = api.items(ListItemsRequest { status: status.into(), ..Default::default() }).await.expect("a page");
        page.items.into_iter().map(|item| item.item_id).collect::<Vec<_>>()
    };
    assert_eq!(listed(ItemStatus::Cancelled).await, [contested, free]);
    assert!(listed(ItemStatus::Open).await.is_empty() && listed(ItemStatus::Closed).await.is_empty());
}

#[tokio::test]
async fn one_that_is_not_open_yet_never_opens_and_is_not_closed_by_its_jobs() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let seller = api.with_token(system.token("sam", "seller"));
    let within = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let request = CreateItemRequest {
        idempotency_key: Uuid::new_v4().to_string(),
        title: "A lamp".to_owned(),
        currency: "EUR".to_owned(),
        start_price_minor: 1_000,
        starts_in: within(3),
        ends_in: within(5),
        ..Default::default()
    };
    let scheduled = seller.create_item(request).await.expect("published").item_id;
    seller.cancel(&scheduled, "broken").await.expect("no bid yet");
    let _worker = system.worker().await;
    let jobs = || async {
        let left =
            sqlx::query_scalar("SELECT count(*) FROM mq_msgs WHERE channel_name IN ('start_item', 'close_item')");
        left.fetch_one(&system.db).await.expect("counted")
    };
    eventually("its jobs are done", jobs, |left: &i64| *left == 0).await;
    let shown = api.item(&scheduled).await.expect("shown").item.expect("the item");
    assert_eq!(
        (shown.status(), shown.version, shown.cancel_reason.as_deref()),
        (ItemStatus::Cancelled, 2, Some("broken"))
    );
}

type Answer = Result<WatchUserResponse, Status>;

async fn frame(stream: &mut (impl StreamExt<Item = Answer> + Unpin)) -> watch_user_response::Frame {
    let next = tokio::time::timeout(std::time::Duration::from_secs(40), stream.next()).await.expect("a frame");
    next.expect("the stream goes on").expect("no error").frame.expect("a frame")
}

#[tokio::test]
async fn who_watches_it_and_who_has_bid_hear_of_it_and_nobody_has_won() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let _worker = system.worker().await;
    let item = item(&system, &api).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    api.hears_events(&item).await;
    let mut concerned = alice.watch_user("").await.expect("watching");
    let mut watched = api.watch_item(&item, 0).await.expect("watching");
    assert!(matches!(frame(&mut concerned).await, watch_user_response::Frame::Snapshot(_)));
    alice.bid(&item, 1_000).await.expect("accepted");
    api.with_token(system.token("olga", "ops")).cancel(&item, "a fake").await.expect("for a reason");
    let mut last = None;
    while let Some(response) = watched.next().await {
        if let Some(watch_item_response::Frame::Update(update)) = response.expect("no error").frame {
            last = Some(update);
        }
    }
    let last = last.expect("an update before the end");
    assert_eq!((last.status(), last.cancel_reason.as_deref()), (ItemStatus::Cancelled, Some("a fake")));
    let notice = loop {
        if let watch_user_response::Frame::Notice(notice) = frame(&mut concerned).await {
            break notice;
        }
    };
    let standing = notice.standing.clone().expect("where they stand");
    assert_eq!((notice.kind(), standing.status()), (NoticeKind::Cancelled, StandingStatus::Cancelled));
    let stats = || async {
        alice.stats("").await.expect("one's own").stats.first().map_or((0, 0), |s| (s.bids_placed, s.items_won))
    };
    eventually("the bid counts, and no win", stats, |stats| *stats == (1, 0)).await;
}
