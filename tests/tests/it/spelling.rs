//! One thing said in several ways is one thing; what is misspelled is named, and does nothing.
use chrono::{TimeDelta, Utc};
use gavel_proto::v1::{self, BidRefusalReason, ReadSource};
use gavel_rules::{BID_CEILING_MINOR, MAX_AMOUNT_MINOR};
use gavel_tests::{Api, Process, System};
use poem_grpc::Code;
use serde_json::{Value, json};
use uuid::Uuid;

async fn item(system: &System, api: &Api) -> String {
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id
}

async fn bids(system: &System) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM bids").fetch_one(&system.db).await.expect("counted")
}

/// Over Connect, as a shell would: status, headers and body.
async fn post(service: &Process, token: &str, method: &str, body: String) -> (u16, Option<String>, Value) {
    let url = format!("http://{}/gavel.v1.{method}", service.address().await);
    let request = reqwest::Client::new().post(url).header("content-type", "application/json").bearer_auth(token);
    let answer = request.body(body).send().await.expect("answered");
    let replayed = answer.headers().get("idempotent-replayed").map(|value| value.to_str().expect("text").to_owned());
    (answer.status().as_u16(), replayed, answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn however_ids_and_keys_are_spelled_a_bid_is_made_once_and_its_repetition_is_marked() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item: Uuid = item(&system, &api).await.parse().expect("an id");
    let (key, token) = (Uuid::new_v4(), system.token("alice", "bidder"));
    let spellings = |id: Uuid| {
        [
            id.hyphenated().to_string(),
            id.hyphenated().to_string().to_uppercase(),
            id.simple().to_string(),
            id.braced().to_string(),
            id.urn().to_string(),
        ]
    };
    let mut first = None;
    for (key, item) in spellings(key).iter().zip(spellings(item)) {
        let body = json!({ "itemId": item, "maxAmountMinor": "1500", "idempotencyKey": key }).to_string();
        let (status, replayed, reply) = post(&service, &token, "BidService/PlaceBid", body).await;
        assert_eq!(status, 200, "{key} {item}: {reply}");
        assert_eq!(replayed.is_some(), first.is_some(), "{key}");
        assert_eq!(first.get_or_insert(reply.clone()), &reply, "{key}");
    }
    assert_eq!(bids(&system).await, 1);
    // A refusal that is repeated is marked as well, in every protocol.
    let alice = api.with_token(token.clone());
    let low = json!({ "itemId": item, "maxAmountMinor": "1", "idempotencyKey": Uuid::new_v4() }).to_string();
    let marks = [
        post(&service, &token, "BidService/PlaceBid", low.clone()).await.1,
        post(&service, &token, "BidService/PlaceBid", low).await.1,
    ];
    assert_eq!(marks, [None, Some("true".to_owned())]);
    let other = alice.bid_with_key(&item.to_string(), 1_600, &key.to_string()).await.expect_err("another amount");
    assert_eq!(other.code, Code::AlreadyExists);
    let another = json!({ "itemId": item, "maxAmountMinor": "1700", "idempotencyKey": key }).to_string();
    let (status, replayed, reply) = post(&service, &token, "BidService/PlaceBid", another).await;
    assert_eq!((status, replayed), (409, None), "nothing like it was answered before: {reply}");
}

#[tokio::test]
async fn the_minimum_that_is_advertised_is_accepted_up_to_the_highest_amount_and_there_it_ends() {
    goes_up_to(&System::new().await, MAX_AMOUNT_MINOR).await;
}

#[tokio::test]
async fn so_it_is_up_to_what_the_old_form_holds_while_that_can_be_brought_back() {
    goes_up_to(&System::expanded().await, BID_CEILING_MINOR).await;
}

async fn goes_up_to(system: &System, ceiling_minor: i64) {
    let (_service, api) = system.service().await;
    let item = item(system, &api).await;
    let (alice, bob) = (api.with_token(system.token("alice", "bidder")), api.with_token(system.token("bob", "bidder")));
    let near = alice.bid(&item, ceiling_minor - 5_000).await.expect("accepted");
    assert_eq!(near.next_minimum_minor, ceiling_minor);
    let highest = bob.bid(&item, near.next_minimum_minor).await.expect("what is advertised is accepted");
    assert_eq!(highest.next_minimum_minor, 0, "no higher bid is possible");
    let shown = api.item(&item).await.expect("shown").item.expect("an item");
    assert_eq!((shown.next_minimum_minor, shown.status()), (0, v1::ItemStatus::Open));
    let refused = alice.bid(&item, ceiling_minor).await.expect_err("the price is the highest").refused.expect("why");
    assert_eq!((refused.reason(), refused.next_minimum_minor), (BidRefusalReason::AtCeiling, 0));
}

#[tokio::test]
async fn a_bid_is_seen_by_whoever_names_its_version_at_once() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    // Without a worker the read model never learns of anything.
    let item = item(&system, &api).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    api.item(&item).await.expect("shown, and kept in the read model");
    for amount in [1_500, 2_000, 2_500] {
        let bid = alice.bid(&item, amount).await.expect("accepted");
        let request = v1::GetItemRequest { item_id: item.clone(), at_least_version: bid.sequence };
        let (request, seen) = api.request(request);
        let reply = gavel_tests::settle(api.items.get_item(request).await, &seen).expect("shown");
        assert_eq!((reply.source(), reply.item.expect("an item").price_minor), (ReadSource::Database, Some(amount)));
    }
    let request = v1::GetItemRequest { item_id: item.clone(), at_least_version: 9_000 };
    let (request, seen) = api.request(request);
    let refused = gavel_tests::settle(api.items.get_item(request).await, &seen).expect_err("there is no such version");
    assert_eq!(refused.code, Code::FailedPrecondition);
    assert!(refused.message.contains("version 4"), "{}", refused.message);
}

#[tokio::test]
async fn json_means_what_it_says_or_is_refused_by_the_name_of_the_field() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let (item, token) = (item(&system, &api).await, system.token("alice", "bidder"));
    let place = async |amount: &str| {
        let key = Uuid::new_v4();
        let body = format!(r#"{{"itemId":"{item}","idempotencyKey":"{key}","maxAmountMinor":{amount}}}"#);
        post(&service, &token, "BidService/PlaceBid", body).await
    };
    for wrong in [
        "1000.99999999999999999",
        "99.99999999999999999",
        "\"+1000\"",
        "\"01000\"",
        "01000",
        "\"\"",
        "1e400",
        "\"1_000\"",
        "\" 1000\"",
        "true",
        "1000.5",
        "9223372036854775808",
    ] {
        let (status, _, said) = place(wrong).await;
        let message = said["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((status, said["code"].as_str()), (400, Some("invalid_argument")), "{wrong}: {said}");
        // That one is no JSON at all.
        assert!(wrong == "01000" || message.contains("maxAmountMinor"), "{wrong}: {message}");
        assert!(wrong == "01000" || !message.contains("column"), "{message}");
    }
    assert_eq!(bids(&system).await, 0);
    for (amount, is) in [
        ("1e3", 1_000),
        ("\"1.1e3\"", 1_100),
        ("1200.0", 1_200),
        ("\"1300.0\"", 1_300),
        ("1400", 1_400),
        ("\"1500\"", 1_500),
    ] {
        let (status, _, reply) = place(amount).await;
        assert_eq!((status, reply["priceMinor"].as_str()), (200, Some(is.to_string().as_str())), "{amount}: {reply}");
    }
    let twice = format!(
        r#"{{"itemId":"{item}","idempotencyKey":"{}","maxAmountMinor":"2000","max_amount_minor":"3000"}}"#,
        Uuid::new_v4()
    );
    let (status, _, said) = post(&service, &token, "BidService/PlaceBid", twice).await;
    assert!(
        status == 400 && said["message"].as_str().is_some_and(|m| m.contains("maxAmountMinor") && m.contains("twice")),
        "{said}"
    );
}

#[tokio::test]
async fn a_field_that_there_is_not_is_refused_with_the_nearest_and_a_time_is_a_time() {
    let system = System::new().await;
    let (service, _) = system.service().await;
    let token = system.token("sam", "seller");
    let now = Utc::now();
    let publish = async |fields: Value| {
        let mut item = json!({
            "idempotencyKey": Uuid::new_v4(), "title": "A lamp", "currency": "EUR", "startPriceMinor": "1000",
            "endsAt": now + TimeDelta::hours(1),
        });
        item.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        post(&service, &token, "ItemService/CreateItem", item.to_string()).await
    };
    for (fields, named) in [
        (json!({ "startAt": now + TimeDelta::minutes(30) }), "startsAt"),
        (json!({ "titel": "A lamp" }), "title"),
        (json!({ "startsAt": "2026-11-28T23:59:60Z" }), "startsAt"),
        (json!({ "startsAt": "2026-02-30T00:00:00Z" }), "startsAt"),
        (json!({ "startsAt": "0001-01-01T00:00:00Z" }), "starts_at"),
        (json!({ "title": "\u{202E}pmal" }), "U+202E"),
        (json!({ "title": "\u{200B}" }), "U+200B"),
    ] {
        let (status, _, said) = publish(fields.clone()).await;
        let message = said["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.contains(named), "{fields}: {said}");
    }
    let items: i64 = sqlx::query_scalar("SELECT count(*) FROM items").fetch_one(&system.db).await.expect("counted");
    assert_eq!(items, 0);
    let (status, _, said) = publish(json!({ "title": "Cafe\u{301}  table" })).await;
    assert_eq!((status, &said["item"]["title"]), (200, &json!("Café table")), "{said}");
}
