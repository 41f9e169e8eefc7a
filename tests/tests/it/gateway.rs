//! Through the TLS gateway: what it leads to, what it does not, and a rolling restart behind it that nobody notices.
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use gavel_gateway::{Kind, Limits};
use gavel_tests::{Process, RunningGateway, System, eventually, frame, gateway::free_port};
use reqwest::{Client, Response, StatusCode, Version};
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
    let mut services = [start(&addresses[0]).await, start(&addresses[1]).await];
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
    let watched = Arc::new(AtomicBool::new(false));
    let watchers: Vec<_> = seen.iter().map(|seen| watch(&gateway, &item, seen.clone(), watched.clone())).collect();
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
    for told in join_all(bidders).await {
        let Told { accepted, failed } = told.expect("the bidder ends well");
        assert_eq!(failed, [""; 0], "no call fails");
        for (sequence, bid_id) in accepted {
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
    watched.store(true, Ordering::Relaxed);
    // The last of them says why their streams end.
    services.iter().for_each(Process::terminate);
    for cut in join_all(watchers).await {
        assert_eq!(cut.expect("the watcher ends well"), [""; 0], "no stream is cut");
    }
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
    let seller = api.with_token(system.token("sam", "seller"));
    let gateway = RunningGateway::open(kind, &[&service]).await;
    let clients = [(gateway.client(), Version::HTTP_2), (gateway.client_over_http1(), Version::HTTP_11)];
    let mut items = Vec::new();
    for _ in &clients {
        items.push(seller.create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id);
    }
    let mut holder = system.db.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM items FOR UPDATE").execute(&mut *holder).await.expect("held");
    let mut calls = Vec::new();
    for ((client, version), item) in clients.into_iter().zip(&items) {
        let stream = open_stream(&client, &gateway.url, item, 0).await.expect("a stream");
        assert_eq!(stream.version(), version);
        let bid = json!({ "itemId": item, "maxAmountMinor": 1_000, "idempotencyKey": Uuid::new_v4() });
        let request = client.post(format!("{}/api/gavel.v1.BidService/PlaceBid", gateway.url));
        let request = request.bearer_auth(system.token("alice", "bidder")).header("content-type", "application/json");
        calls.push((
            tokio::spawn(request.body(bid.to_string()).send()),
            tokio::spawn(to_its_end(stream, |_| ())),
            version,
        ));
    }
    eventually("they wait for the locks", || system.waiting_for_locks("bid-service"), |count| *count > 0).await;
    let waiting = || service.in_flight("place_bid", "rpc");
    eventually("both are under way", waiting, |count| *count == 2).await;
    let address = service.address().await;
    service.terminate();
    let is_closed = || async { tokio::net::TcpStream::connect(&address).await.is_err() };
    eventually("the service takes no more", is_closed, |closed| *closed).await;
    // The gateway has looked again by now: twice, and found it as it is.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    holder.rollback().await.expect("let go");
    for (call, stream, version) in calls {
        let reply = call.await.expect("no panic").unwrap_or_else(|error| panic!("over {version:?}: {error}"));
        assert_eq!((reply.status(), reply.version()), (StatusCode::OK, version));
        assert_eq!(reply.json::<Value>().await.expect("JSON")["sequence"], "2");
        let last = stream.await.expect("no panic").unwrap_or_else(|cut| panic!("over {version:?}: {cut}"));
        assert_eq!(last["error"]["code"], "unavailable", "it says why it ends, over {version:?}");
    }
    assert!(service.ended().await.success(), "{:?}", service.output().last());
}

#[tokio::test]
async fn behind_nginx_calls_are_answered_while_every_service_drains() {
    is_answered_while_all_drain(Kind::Nginx).await;
}

#[tokio::test]
async fn behind_haproxy_calls_are_answered_while_every_service_drains() {
    is_answered_while_all_drain(Kind::Haproxy).await;
}

/// As it looks to a gateway for a moment in a rollout: one drains, and that the other is back it has not seen yet.
async fn is_answered_while_all_drain(kind: Kind) {
    let system = System::new().await;
    let drains = [("GAVEL_DRAIN_DELAY_MS", "8000")];
    let services = [system.service_with(&drains).await.0, system.service_with(&drains).await.0];
    let gateway = RunningGateway::open(kind, &[&services[0], &services[1]]).await;
    services.iter().for_each(Process::terminate);
    if kind == Kind::Haproxy {
        eventually("it has asked them", || gateway.sends_to_nobody(), |knows| *knows).await;
    }
    let request = gateway.client().post(format!("{}/api/gavel.v1.ItemService/ListItems", gateway.url));
    let reply = request.header("content-type", "application/json").body("{}").send().await.expect("answered");
    assert_eq!(reply.status(), StatusCode::OK, "{:?}", reply.text().await);
}

struct Bidder {
    client: Client,
    url: String,
    token: String,
    item: String,
}

#[derive(Default)]
struct Told {
    /// Sequences and ids.
    accepted: Vec<(i64, String)>,
    failed: Vec<String>,
}

impl Bidder {
    /// Bids until it is over; asks again, with the same key, whatever got no answer.
    async fn run(self, amount: Arc<AtomicI64>, over: Arc<AtomicBool>) -> Told {
        let mut told = Told::default();
        while !over.load(Ordering::Relaxed) {
            let bid = json!({
                "itemId": self.item,
                "maxAmountMinor": amount.fetch_add(100, Ordering::Relaxed),
                "idempotencyKey": Uuid::new_v4(),
            });
            let accepted = self.ask(&bid, &mut told.failed).await;
            told.accepted.extend(accepted);
        }
        told
    }

    /// None where the bid is refused: a higher one was first.
    async fn ask(&self, bid: &Value, failed: &mut Vec<String>) -> Option<(i64, String)> {
        loop {
            let request = self.client.post(&self.url).bearer_auth(&self.token);
            let sent = request.header("content-type", "application/json").body(bid.to_string()).send().await;
            let answer = match sent {
                Ok(reply) => reply.text().await.map_err(|error| format!("{error:?}")),
                Err(error) => Err(format!("{error:?}")),
            };
            let reply = answer.and_then(|text| serde_json::from_str::<Value>(&text).map_err(|_| text));
            match reply {
                Ok(reply) if reply["bidId"].is_string() => {
                    let text = |field: &str| reply[field].as_str().expect("a text").to_owned();
                    return Some((text("sequence").parse().expect("a number"), text("bidId")));
                }
                Ok(reply) if reply["code"] == "failed_precondition" => return None,
                Ok(reply) => failed.push(reply.to_string()),
                Err(why) => failed.push(why),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Watches as a browser would: when the stream ends, again from the version it has. Gives why any was cut.
fn watch(gateway: &RunningGateway, item: &str, seen: Arc<AtomicI64>, over: Arc<AtomicBool>) -> JoinHandle<Vec<String>> {
    let (client, url, item) = (gateway.client(), gateway.url.clone(), item.to_owned());
    tokio::spawn(async move {
        let mut cut = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let stream = open_stream(&client, &url, &item, seen.load(Ordering::Relaxed)).await;
            let ended = match stream {
                Ok(stream) => to_its_end(stream, |frame| note(frame, &seen)).await,
                // There is nobody any more.
                Err(_) if over.load(Ordering::Relaxed) => break,
                Err(error) => Err(format!("{error:?}")),
            };
            cut.extend(ended.err());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cut
    })
}

async fn open_stream(client: &Client, url: &str, item: &str, known: i64) -> reqwest::Result<Response> {
    let known = json!({ "itemId": item, "knownVersion": known.to_string() }).to_string();
    let request = client.post(format!("{url}/api/gavel.v1.ItemService/WatchItem"));
    let request = request.header("content-type", "application/connect+json").body(frame(0, known.as_bytes()));
    request.send().await?.error_for_status()
}

/// Reads it until it says that it ends, and gives why; else how it was cut.
async fn to_its_end(mut stream: Response, mut hears: impl FnMut(&Value)) -> Result<Value, String> {
    let (mut buffer, mut last) = (Vec::new(), None);
    while let Some(chunk) = stream.chunk().await.map_err(|error| format!("{error:?}"))? {
        buffer.extend_from_slice(&chunk);
        while let Some((flags, frame)) = take_frame(&mut buffer) {
            hears(&frame);
            last = (flags & 2 != 0).then_some(frame);
        }
    }
    last.ok_or_else(|| "it ends and has not said so".to_owned())
}

fn take_frame(buffer: &mut Vec<u8>) -> Option<(u8, Value)> {
    let (flags, length) = (*buffer.first()?, u32::from_be_bytes(buffer.get(1..5)?.try_into().ok()?) as usize);
    let frame = buffer.get(5..5 + length).map(|json| serde_json::from_slice(json).expect("JSON"))?;
    buffer.drain(..5 + length);
    Some((flags, frame))
}

fn note(frame: &Value, seen: &AtomicI64) {
    for kind in ["snapshot", "update"] {
        if let Some(version) = frame[kind]["version"].as_str() {
            let version = version.parse().expect("a number");
            assert!(seen.swap(version, Ordering::Relaxed) <= version, "back to {version}");
        }
    }
}
