//! Lists, pages, plain HTTP, and requests that are wrong.
use chrono::{TimeDelta, Utc};
use gavel_proto::v1;
use gavel_tests::System;
use poem_grpc::Code;
use serde_json::Value;

#[tokio::test]
async fn lists_are_newest_first_and_pages_join_without_gap_or_overlap() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let seller = api.with_token(system.token("sam", "seller"));
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.insert(0, seller.create(&format!("Lamp {n}"), Utc::now() + TimeDelta::hours(1)).await.item_id);
    }
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListItemsRequest { page_size: 2, page_token, status: v1::ItemStatus::Open.into() };
        let page = api.items(request).await.expect("a page");
        assert!(page.items.len() <= 2);
        listed.extend(page.items.into_iter().map(|item| item.item_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, ids);
    for (status, at) in
        [(v1::ItemStatus::Closing, "-1000000000000000000"), (v1::ItemStatus::Scheduled, "9000000000000000000")]
    {
        let page_token = format!("{at}_{}", ids[0]);
        let request = v1::ListItemsRequest { page_token, status: status.into(), ..Default::default() };
        assert_eq!(api.items(request).await.expect_err("of no calendar").code, Code::InvalidArgument);
    }

    let alice = api.with_token(system.token("alice", "bidder"));
    for amount in [1_000, 2_000, 3_000] {
        alice.bid(&ids[0], amount).await.expect("accepted");
    }
    let request = |page_token| v1::ListBidsRequest { item_id: ids[0].clone(), page_size: 2, page_token };
    let first = api.bids(request(String::new())).await.expect("a page");
    let second = api.bids(request(first.next_page_token.clone())).await.expect("a page");
    let amounts: Vec<_> = first.bids.iter().chain(&second.bids).map(|bid| (bid.sequence, bid.amount_minor)).collect();
    assert_eq!(amounts, [(4, 3_000), (3, 2_000), (2, 1_000)]);
    assert_eq!(second.next_page_token, "");

    let url = format!("http://{}/items/{}", service.address().await, ids[0]);
    let shown: Value = reqwest::get(&url).await.expect("answered").json().await.expect("JSON");
    assert_eq!((&shown["price_minor"], &shown["leader"]), (&3_000.into(), &"alice".into()));
    let missing = reqwest::get(url.replace(&ids[0], &uuid::Uuid::nil().to_string())).await.expect("answered");
    assert_eq!(missing.status(), 404);
    let told: Value = missing.json().await.expect("JSON");
    assert_eq!(told["code"], "not_found");
}

#[tokio::test]
async fn what_is_wrong_with_an_item_is_named() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let seller = api.with_token(system.token("sam", "seller"));
    let valid = v1::CreateItemRequest {
        idempotency_key: uuid::Uuid::new_v4().to_string(),
        title: "A lamp".to_owned(),
        currency: "EUR".to_owned(),
        start_price_minor: 1_000,
        starts_at: None,
        ends_at: Some(prost_types::Timestamp { seconds: Utc::now().timestamp() + 60, nanos: 0 }),
        ..v1::CreateItemRequest::default()
    };
    let past = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    for (request, named) in [
        (v1::CreateItemRequest { title: String::new(), ..valid.clone() }, "title"),
        (v1::CreateItemRequest { currency: "BTC".to_owned(), ..valid.clone() }, "EUR"),
        (v1::CreateItemRequest { start_price_minor: 0, ..valid.clone() }, "1 to"),
        (v1::CreateItemRequest { ends_at: None, ..valid.clone() }, "ends_at"),
        (v1::CreateItemRequest { ends_at: past, ..valid.clone() }, "after now"),
    ] {
        let failure = seller.create_item(request).await.expect_err("invalid");
        assert_eq!(failure.code, Code::InvalidArgument, "{failure:?}");
        assert!(failure.message.contains(named), "{named} is not in {:?}", failure.message);
    }
}

#[tokio::test]
async fn what_does_not_exist_or_can_not_be_is_named_and_counted() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let nowhere = uuid::Uuid::nil().to_string();
    assert_eq!(alice.bid(&nowhere, 1_000).await.expect_err("no item").code, Code::NotFound);
    assert_eq!(alice.bid("nonsense", 1_000).await.expect_err("no UUID").code, Code::InvalidArgument);
    assert_eq!(alice.bid(&nowhere, -5).await.expect_err("no amount").code, Code::InvalidArgument);
    assert_eq!(api.item(&nowhere).await.expect_err("no item").code, Code::NotFound);
    let long = api.item(&"x".repeat(50_000)).await.expect_err("no UUID");
    assert_eq!(long.code, Code::InvalidArgument);
    assert!((900..=1_000).contains(&long.message.len()), "quoted, and cut: {}", long.message.len());
    let huge = api.item(&"x".repeat(100_000)).await.expect_err("too large");
    assert_eq!(huge.code, Code::ResourceExhausted, "{huge:?}");
    // 64 KiB, and five bytes of the envelope around it.
    assert!(huge.message.contains("65541"), "it names the limit: {huge:?}");
    let health = reqwest::get(format!("http://{}/healthz", service.address().await)).await.expect("answered");
    assert_eq!(health.status(), 200);
    let metrics = service.metrics().await;
    let line = metrics.lines().find(|line| {
        line.starts_with("gavel_handler_invocations_total") && line.contains("place_bid") && line.contains("not_found")
    });
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
}
