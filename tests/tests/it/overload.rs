//! When every place is taken, whoever comes next is refused before anything of the call is read.
use chrono::{TimeDelta, Utc};
use gavel_tests::{System, eventually};
use reqwest::Client;
use serde_json::Value;
use std::time::Duration;
use tokio::task::JoinSet;

/// Twice as many as `create_item` has places. Each comes again whenever it was sent away, so that places are taken
/// however slowly calls arrive.
const SELLERS: usize = 128;

#[tokio::test]
async fn a_call_that_finds_no_place_is_refused_unread_in_its_own_protocol() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let ends_at = Utc::now() + TimeDelta::hours(1);
    let mut holder = system.db.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE items IN EXCLUSIVE MODE").execute(&mut *holder).await.expect("locked");
    let mut waiting = JoinSet::new();
    for n in 0..SELLERS {
        let seller = api.with_token(system.token(&format!("seller-{n}"), "seller"));
        waiting.spawn(async move {
            while seller.try_create("Lamp", ends_at).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    let base = format!("http://{}", service.address().await);
    // Neither a token nor a request that could be read: both would be found out later than this.
    let post = |content_type: &'static str| {
        let request = Client::new().post(format!("{base}/gavel.v1.ItemService/CreateItem"));
        request.header("content-type", content_type).header("x-correlation-id", "early").body("nonsense").send()
    };
    let refused = || async {
        let response = post("application/json").await.expect("answered");
        let correlation_id = response.headers()["x-correlation-id"].clone();
        (response.status().as_u16(), correlation_id, response.json::<Value>().await.expect("JSON"))
    };
    let (_, correlation_id, error) = eventually("all places are taken", refused, |(status, ..)| *status == 429).await;
    assert_eq!(correlation_id, "early");
    assert_eq!(error["code"], "resource_exhausted");
    // Why, and when to come again.
    for detail in ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"] {
        let told = error["details"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == detail));
        assert!(told, "{detail}: {error}");
    }
    let web = || async {
        let answer = post("application/grpc-web+proto").await.expect("answered").bytes().await.expect("read");
        String::from_utf8_lossy(&answer).into_owned()
    };
    eventually("refused in gRPC-Web as well", web, |answer| answer.contains("grpc-status: 8")).await;
    let metrics = service.metrics().await;
    let counted = metrics.lines().find(|line| line.contains("rejected") && line.contains("create_item"));
    let is_counted = |line: &str| line.contains("CONCURRENCY_EXCEEDED") && !line.ends_with(" 0");
    assert!(counted.is_some_and(is_counted), "{counted:?}");

    holder.rollback().await.expect("released");
    let all = async { while waiting.join_next().await.transpose().expect("no panic").is_some() {} };
    tokio::time::timeout(Duration::from_secs(40), all).await.expect("there are places again, for each of them");
}
