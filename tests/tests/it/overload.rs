//! When every place is taken, whoever comes next is refused before anything of the call is read.
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use gavel_tests::{System, eventually};
use reqwest::Client;
use serde_json::{Value, json};
use uuid::Uuid;

/// Places of `place_bid`, as its spec says.
const PLACES: usize = 1_024;

#[tokio::test]
async fn a_call_that_finds_no_place_is_refused_unread_in_its_own_protocol() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let seller = api.with_token(system.token("sam", "seller"));
    let ends_at = Utc::now() + TimeDelta::hours(1);
    let items = join_all(["One", "Two", "Three", "Four"].map(|title| seller.create(title, ends_at))).await;
    let mut holder = system.db.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE items IN EXCLUSIVE MODE").execute(&mut *holder).await.expect("locked");
    let waiting: Vec<_> = (0..PLACES)
        .map(|n| {
            let (api, item) =
                (api.with_token(system.token(&format!("bidder-{}", n % 50), "bidder")), items[n % 4].item_id.clone());
            tokio::spawn(async move { api.bid(&item, 1_000 + 50 * n as i64).await })
        })
        .collect();
    let base = format!("http://{}", service.address().await);
    // Neither a token nor a request that could be read: both would be found out later than this.
    let post = |content_type: &'static str| {
        let request = Client::new().post(format!("{base}/gavel.v1.BidService/PlaceBid"));
        request.header("content-type", content_type).header("x-correlation-id", "early").body("nonsense").send()
    };
    let refused = || async {
        let response = post("application/json").await.expect("answered");
        let correlation_id = response.headers()["x-correlation-id"].clone();
        (response.status().as_u16(), correlation_id, response.json::<Value>().await.expect("JSON"))
    };
    let (_, correlation_id, error) = eventually("all places are taken", refused, |(status, ..)| *status == 429).await;
    assert_eq!(correlation_id, "early");
    assert_eq!(
        (&error["code"], &error["details"][0]["type"]),
        (&json!("resource_exhausted"), &json!("google.rpc.RetryInfo"))
    );
    let web = post("application/grpc-web+proto").await.expect("answered").bytes().await.expect("read");
    assert!(String::from_utf8_lossy(&web).contains("grpc-status: 8"), "{web:?}");
    let metrics = service.metrics().await;
    let counted = metrics.lines().find(|line| line.contains("turned_away") && line.contains("place_bid"));
    assert!(counted.is_some_and(|line| !line.ends_with(" 0")), "{counted:?}");

    holder.rollback().await.expect("released");
    join_all(waiting).await;
    let bidder = api.with_token(system.token("zoe", "bidder"));
    bidder
        .bid_with_key(&items[0].item_id, 1_000_000, &Uuid::new_v4().to_string())
        .await
        .expect("there is a place again");
}
