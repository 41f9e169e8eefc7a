//! Through the TLS gateway: what it leads to, what it does not, and a rolling restart behind it that nobody notices.
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use gavel_gateway::{Kind, Limits};
use gavel_tests::{Process, RunningGateway, System, eventually, frame, gateway::free_port};
use reqwest::{Client, StatusCode, Version};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;
use uuid::Uuid;

const BIDDERS: usize = 6;
const WATCHERS: usize = 6;

#[tokio::test]
async fn nginx_leads_to_what_is_listed_and_nowhere_else() {
    leads_where_it_should(Kind::Nginx).await;
}

#[tokio::test]
async fn haproxy_leads_to_what_is_listed_and_nowhere_else() {
    leads_where_it_should(Kind::Haproxy).await;
}

async fn leads_where_it_should(kind: Kind) {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let gateway = RunningGateway::open(kind, &[&service]).await;
    let client = gateway.client();
    let ask = |path: &str| {
        let request = client.post(format!("{}{path}", gateway.url)).header("x-correlation-id", "through-the-gateway");
        request.header("content-type", "application/json").body(json!({ "itemId": item.item_id }).to_string()).send()
    };
    for path in ["/api/gavel.v1.ItemService/GetItem", "/gavel.v1.ItemService/GetItem"] {
        let reply = ask(path).await.expect("answered");
        assert_eq!((reply.status(), reply.version()), (StatusCode::OK, Version::HTTP_2), "{path}");
        assert_eq!(reply.headers()["x-correlation-id"], "through-the-gateway");
        assert_eq!(reply.headers()["x-content-type-options"], "nosniff");
        assert!(reply.headers().contains_key("strict-transport-security"));
        assert_eq!(reply.json::<Value>().await.expect("JSON")["item"]["title"], "A lamp");
    }
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let huge = client.post(format!("{}/api/gavel.v1.ItemService/GetItem", gateway.url)).version(version);
        let huge = huge.header("content-type", "application/json").body(vec![b' '; 2 * 1_024 * 1_024]);
        let refused = huge.send().await.expect("answered");
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{version:?}");
        assert_eq!(refused.json::<Value>().await.expect("JSON")["code"], "resource_exhausted", "{version:?}");
    }
    let plain = client.get(format!("{}/api/items/{}", gateway.url, item.item_id)).send().await.expect("answered");
    assert_eq!(plain.status(), StatusCode::OK);
    for path in [
        "/metrics",
        "/readyz",
        "/api/metrics",
        "/grpc.health.v1.Health/Check",
        "/api/externalscaler.ExternalScaler/IsActive",
        "/externalscaler.ExternalScaler/IsActive",
        "/gavel.v1.ItemService/GetItem/../../metrics",
    ] {
        let reply = ask(path).await.expect("answered");
        assert_eq!(reply.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(reply.headers()["x-correlation-id"], "through-the-gateway", "{path}");
    }
    let over_ipv6 = gateway.client_over_ipv6().get(format!("{}/api/items/{}", gateway.url, item.item_id));
    assert_eq!(over_ipv6.send().await.expect("answered").status(), StatusCode::OK);
    let led = gateway.without_tls("/api/items/x?y=1").await;
    assert!(led.starts_with("HTTP/1.1 301"), "{led}");
    assert!(led.to_lowercase().contains("location: https://auction.example/api/items/x?y=1"), "{led}");
    // Nobody gives certificates here; it is asked all the same, and over TLS the path leads nowhere.
    let asked = gateway.without_tls("/.well-known/acme-challenge/token").await;
    assert!(asked.starts_with("HTTP/1.1 502") || asked.starts_with("HTTP/1.1 503"), "{asked}");
    assert_eq!(ask("/.well-known/acme-challenge/token").await.expect("answered").status(), StatusCode::NOT_FOUND);
    eventually("the calls are logged", || async { gateway.log() }, |log| log.contains("through-the-gateway")).await;
}

#[tokio::test]
async fn nginx_lets_one_address_in_as_often_as_it_may() {
    is_let_in_as_often_as_it_may(Kind::Nginx).await;
}

#[tokio::test]
async fn haproxy_lets_one_address_in_as_often_as_it_may() {
    is_let_in_as_often_as_it_may(Kind::Haproxy).await;
}

async fn is_let_in_as_often_as_it_may(kind: Kind) {
    let system = System::new().await;
    let (service, _) = system.service().await;
    let limits = Limits { calls_per_second: 4, connections: 100 };
    let gateway = RunningGateway::open_with(kind, &[&service], limits).await;
    let client = gateway.client();
    let ask = || async {
        let request = client.post(format!("{}/api/gavel.v1.ItemService/ListItems", gateway.url));
        let reply = request.header("content-type", "application/json").body("{}").send().await.expect("answered");
        assert_eq!(reply.headers().contains_key("retry-after"), reply.status() != StatusCode::OK);
        reply.status()
    };
    let answers = join_all((0..40).map(|_| ask())).await;
    let let_in = answers.iter().filter(|status| **status == StatusCode::OK).count();
    assert!((1..40).contains(&let_in), "{answers:?}");
    assert!(
        answers.iter().all(|status| [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS].contains(status)),
        "{answers:?}"
    );
    eventually("it is let in again", ask, |status| *status == StatusCode::OK).await;
}

#[tokio::test]
async fn behind_nginx_a_rolling_restart_loses_no_bid_and_every_watcher_converges() {
    rolling_restart(Kind::Nginx).await;
}

#[tokio::test]
async fn behind_haproxy_a_rolling_restart_loses_no_bid_and_every_watcher_converges() {
    rolling_restart(Kind::Haproxy).await;
}

async fn rolling_restart(kind: Kind) {
    let system = System::new().await;
    let free = async || format!("127.0.0.1:{}", free_port().await);
    let addresses = [[free().await, free().await], [free().await, free().await]];
    let start = async |[address, ops_address]: &[String; 2]| {
        let ports = [("GAVEL_LISTEN", address.as_str()), ("GAVEL_OPS_LISTEN", ops_address)];
        let (service, _) = system.service_with(&[&ports[..], &[("GAVEL_DRAIN_DELAY_MS", "1200")]].concat()).await;
        service
    };
    let mut services = vec![start(&addresses[0]).await, start(&addresses[1]).await];
    let _worker = system.worker().await;
    let gateway = RunningGateway::open(kind, &[&services[0], &services[1]]).await;
    let seller = gavel_tests::Api::of(&services[0]).await.with_token(system.token("sam", "seller"));
    let item = seller.create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id;

    let (over, amount) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(1_000)));
    let bidders: Vec<_> = (0..BIDDERS)
        .map(|n| {
            let bidder = Bidder {
                client: gateway.client(),
                url: format!("{}/api/gavel.v1.BidService/PlaceBid", gateway.url),
                token: system.token(&format!("bidder-{n}"), "bidder"),
                item: item.clone(),
            };
            tokio::spawn(bidder.run(amount.clone(), over.clone()))
        })
        .collect();
    let seen: Vec<_> = (0..WATCHERS).map(|_| Arc::new(AtomicI64::new(0))).collect();
    let watchers: Vec<_> = seen.iter().map(|seen| watch(&gateway, &item, seen.clone())).collect();
    for n in 0..2 {
        let before = amount.load(Ordering::Relaxed);
        // Under load before, while and after each of them is away.
        eventually("bids flow", || async { amount.load(Ordering::Relaxed) }, |now| *now > before + 2_000).await;
        services[n].terminate();
        assert!(services[n].ended().await.success(), "{:?}", services[n].output().last());
        services[n] = start(&addresses[n]).await;
    }
    let before = amount.load(Ordering::Relaxed);
    eventually("bids flow again", || async { amount.load(Ordering::Relaxed) }, |now| *now > before + 2_000).await;
    over.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for answers in join_all(bidders).await {
        for (sequence, bid_id) in answers.expect("the bidder ends well") {
            assert!(acknowledged.insert(sequence, bid_id).is_none(), "version {sequence} was given twice");
        }
    }
    let ledger: Vec<(i64, Uuid)> = sqlx::query_as("SELECT sequence, bid_id FROM bids ORDER BY sequence")
        .fetch_all(&system.db)
        .await
        .expect("the ledger");
    let ledger: BTreeMap<_, _> = ledger.into_iter().map(|(at, id)| (at, id.to_string())).collect();
    assert!(ledger == acknowledged, "{} bids in the ledger, {} acknowledged", ledger.len(), acknowledged.len());
    let last = *ledger.keys().last().expect("bids");
    let versions = || async { seen.iter().map(|seen| seen.load(Ordering::Relaxed)).collect::<Vec<_>>() };
    eventually("every watcher converges", versions, |versions| versions.iter().all(|version| *version == last)).await;
    watchers.iter().for_each(JoinHandle::abort);
    drop::<Vec<Process>>(services);
}

#[tokio::test]
async fn behind_nginx_a_call_under_way_is_answered_however_long_its_service_drains() {
    is_answered_by_a_draining_service(Kind::Nginx).await;
}

#[tokio::test]
async fn behind_haproxy_a_call_under_way_is_answered_however_long_its_service_drains() {
    is_answered_by_a_draining_service(Kind::Haproxy).await;
}

async fn is_answered_by_a_draining_service(kind: Kind) {
    let system = System::new().await;
    let (mut service, api) = system.service_with(&[("GAVEL_DRAIN_DELAY_MS", "1200")]).await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let gateway = RunningGateway::open(kind, &[&service]).await;
    let mut holder = system.db.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM items FOR UPDATE").execute(&mut *holder).await.expect("held");
    let bid = json!({ "itemId": item.item_id, "maxAmountMinor": 1_000, "idempotencyKey": Uuid::new_v4() });
    let request = gateway.client().post(format!("{}/api/gavel.v1.BidService/PlaceBid", gateway.url));
    let request = request.bearer_auth(system.token("alice", "bidder")).header("content-type", "application/json");
    let call = tokio::spawn(request.body(bid.to_string()).send());
    eventually("it waits for the lock", || system.waiting_for_locks("bid-service"), |count| *count > 0).await;
    let address = service.address().await;
    service.terminate();
    let is_closed = || async { tokio::net::TcpStream::connect(&address).await.is_err() };
    eventually("the service takes no more", is_closed, |closed| *closed).await;
    // The gateway has looked again by now: twice, and found it as it is.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    holder.rollback().await.expect("let go");
    let reply = call.await.expect("no panic").expect("an answer");
    assert_eq!(reply.status(), StatusCode::OK);
    assert_eq!(reply.json::<Value>().await.expect("JSON")["sequence"], "2");
    assert!(service.ended().await.success(), "{:?}", service.output().last());
}

struct Bidder {
    client: Client,
    url: String,
    token: String,
    item: String,
}

impl Bidder {
    /// Bids until it is over; asks again, with the same key, whatever got no answer. Gives what was accepted.
    async fn run(self, amount: Arc<AtomicI64>, over: Arc<AtomicBool>) -> Vec<(i64, String)> {
        let mut accepted = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let bid = json!({
                "itemId": self.item,
                "maxAmountMinor": amount.fetch_add(100, Ordering::Relaxed),
                "idempotencyKey": Uuid::new_v4(),
            });
            accepted.extend(self.ask(&bid).await);
        }
        accepted
    }

    /// None where the bid is refused: a higher one was first.
    async fn ask(&self, bid: &Value) -> Option<(i64, String)> {
        loop {
            let request = self.client.post(&self.url).bearer_auth(&self.token);
            let sent = request.header("content-type", "application/json").body(bid.to_string()).send().await;
            let answer = match sent {
                Ok(reply) => reply.json::<Value>().await.ok(),
                Err(_) => None,
            };
            if let Some(reply) = answer.as_ref().filter(|answer| answer["bidId"].is_string()) {
                let text = |field: &str| reply[field].as_str().expect("a text").to_owned();
                return Some((text("sequence").parse().expect("a number"), text("bidId")));
            }
            if answer.is_some_and(|answer| answer["code"] == "failed_precondition") {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Watches as a browser would: when the stream ends, again from the version it has.
fn watch(gateway: &RunningGateway, item: &str, seen: Arc<AtomicI64>) -> JoinHandle<()> {
    let (client, url) = (gateway.client(), format!("{}/api/gavel.v1.ItemService/WatchItem", gateway.url));
    let item = item.to_owned();
    tokio::spawn(async move {
        loop {
            let known = json!({ "itemId": item, "knownVersion": seen.load(Ordering::Relaxed) }).to_string();
            let body = frame(0, known.as_bytes());
            let request = client.post(&url).header("content-type", "application/connect+json").body(body);
            if let Ok(mut reply) = request.send().await {
                let mut buffer = Vec::new();
                while let Ok(Some(chunk)) = reply.chunk().await {
                    buffer.extend_from_slice(&chunk);
                    while let Some(frame) = take_frame(&mut buffer) {
                        note(&frame, &seen);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

fn take_frame(buffer: &mut Vec<u8>) -> Option<Value> {
    let length = u32::from_be_bytes(buffer.get(1..5)?.try_into().ok()?) as usize;
    let frame = buffer.get(5..5 + length).map(|json| serde_json::from_slice(json).expect("JSON"))?;
    buffer.drain(..5 + length);
    Some(frame)
}

fn note(frame: &Value, seen: &AtomicI64) {
    for kind in ["snapshot", "update"] {
        if let Some(version) = frame[kind]["version"].as_str() {
            let version = version.parse().expect("a number");
            assert!(seen.swap(version, Ordering::Relaxed) <= version, "back to {version}");
        }
    }
}
