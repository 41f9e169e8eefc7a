//! Clients that mean no good, or do not care: they get no further than their limits, and nobody else notices.
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use gavel_gateway::Kind;
use gavel_proto::v1::WatchItemRequest;
use gavel_tests::{Api, Process, RunningGateway, System, eventually, frame};
use http::{Request, header::CONTENT_TYPE};
use prost::Message;
use reqwest::StatusCode;
use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, process::Command};
use uuid::Uuid;

async fn item(system: &System, api: &Api) -> String {
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id
}

/// Everybody else is served as ever.
async fn still_serves(system: &System, api: &Api, item: &str, amount: i64) {
    let bidder = api.with_token(system.token("zoe", "bidder"));
    bidder.bid_with_key(item, amount, &Uuid::new_v4().to_string()).await.expect("others are served");
}

fn watch_frame(item: &str) -> Bytes {
    frame(0, &WatchItemRequest { item_id: item.to_owned(), known_version: 0 }.encode_to_vec())
}

/// A connection whose streams take so many bytes each and no more.
async fn connect(address: &str, window: u32) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("connected");
    let mut builder = h2::client::Builder::new();
    // Many small answers may wait to be read.
    let builder = builder.initial_window_size(window).data_frame_budget(1 << 22);
    let (send, connection) = builder.handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    send
}

async fn open(send: &h2::client::SendRequest<Bytes>, address: &str, item: &str) -> h2::RecvStream {
    let uri = format!("http://{address}/gavel.v1.ItemService/WatchItem");
    let request = Request::post(uri).header(CONTENT_TYPE, "application/grpc").header("te", "trailers").body(());
    let mut send = send.clone().ready().await.expect("ready");
    let (response, mut body) = send.send_request(request.expect("a request"), false).expect("sent");
    body.send_data(watch_frame(item), true).expect("sent");
    response.await.expect("opened").into_body()
}

fn resident_kib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("alive");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a line");
    line.split_whitespace().nth(1).and_then(|figure| figure.parse().ok()).expect("a figure")
}

#[tokio::test]
async fn a_thousand_readers_that_stop_reading_cost_nothing_more_and_are_dropped() {
    let system = System::new().await;
    let variables =
        [("GAVEL_STREAM_PATIENCE_MS", "8000"), ("GAVEL_STREAMS_PER_ADDRESS", "0"), ("GAVEL_READS_PER_ADDRESS", "0")];
    let (service, api) = system.service_with(&variables).await;
    let _worker = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let (address, item) = (service.address().await, item(&system, &api).await);
    let connections = join_all((0..10).map(|_| connect(&address, 64))).await;
    let mut stalled = Vec::new();
    for connection in &connections {
        stalled.extend(join_all((0..100).map(|_| open(connection, &address, &item))).await);
    }
    let watching = || service.in_flight("watch_item", "stream");
    eventually("all are watching", watching, |open| *open == 1_000).await;
    let mut healthy = open(&connect(&address, 1 << 20).await, &address, &item).await;
    let before = resident_kib(&service);
    let bidder = api.with_token(system.token("zoe", "bidder"));
    for n in 0..60 {
        bidder.bid(&item, 1_000 + 100 * n).await.expect("accepted");
    }
    // Version 61, as the protobuf field it is, is in some frame that the healthy one gets.
    let (mut seen, mut last) = (Vec::new(), false);
    while !last {
        let chunk = tokio::time::timeout(Duration::from_secs(30), healthy.data()).await.expect("it goes on");
        seen.extend(chunk.expect("not the end").expect("no error"));
        last = seen.windows(2).any(|bytes| bytes == [0x08, 61]);
    }
    let grown = resident_kib(&service).saturating_sub(before);
    assert!(grown < 8 * 1_024, "{grown} KiB more for readers that do not read");
    drop(healthy);
    eventually("those that take nothing are dropped", watching, |open| *open == 0).await;
    still_serves(&system, &api, &item, 100_000).await;
    drop(stalled);
}

#[tokio::test]
async fn a_flood_of_streams_of_headers_and_of_resets_ends_at_its_connection() {
    let system = System::new().await;
    let boundless = [("GAVEL_STREAMS_PER_ADDRESS", "0"), ("GAVEL_READS_PER_ADDRESS", "0")];
    let (service, api) = system.service_with(&boundless).await;
    let (address, item) = (service.address().await, item(&system, &api).await);
    // The server allows 1 024 streams of a connection: one more has to wait until another has ended.
    let mut send = connect(&address, 1 << 16).await;
    let mut streams = Vec::new();
    for _ in 0..1_024 {
        streams.push(open(&send, &address, &item).await);
    }
    assert_eq!(send.current_max_send_streams(), 1_024);
    let request =
        Request::post(format!("http://{address}/gavel.v1.ItemService/WatchItem")).body(()).expect("a request");
    send = send.ready().await.expect("the first in line");
    let (waiting, _body) = send.send_request(request, true).expect("queued");
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err(), "it is not let in");
    drop(streams);

    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let url = format!("http://{address}/gavel.v1.ItemService/GetItem");
    let large = client.post(&url).header("x-large", "x".repeat(200 * 1_024)).send().await;
    assert!(large.is_err() || large.is_ok_and(|reply| reply.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));

    let client = reqwest::Client::builder().http1_only().build().expect("a client");
    let large = client.post(&url).header("x-large", "x".repeat(40 * 1_024)).send().await.expect("answered");
    assert_eq!(large.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);

    // Streams that are reset as soon as they are opened: the connection is closed for it.
    let send = connect(&address, 1 << 16).await;
    let until = Instant::now() + Duration::from_secs(20);
    let closed = loop {
        let Ok(mut ready) = send.clone().ready().await else { break true };
        let request = Request::get(format!("http://{address}/readyz")).body(()).expect("a request");
        let Ok((_, mut body)) = ready.send_request(request, false) else { break true };
        body.send_reset(h2::Reason::CANCEL);
        tokio::task::yield_now().await;
        if Instant::now() > until {
            break false;
        }
    };
    assert!(closed, "resets go on for ever");
    still_serves(&system, &api, &item, 1_000).await;
}

#[tokio::test]
async fn frames_that_break_off_and_lengths_that_lie_are_the_senders_error() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let (address, item) = (service.address().await, item(&system, &api).await);
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let whole = watch_frame(&item);
    let mut lies = whole.to_vec();
    lies[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut compressed = whole.to_vec();
    compressed[0] = 1;
    for (what, body) in [
        ("cut off in the length", whole[..3].to_vec()),
        ("cut off in the message", whole[..whole.len() - 1].to_vec()),
        ("longer than there is", lies),
        ("said to be compressed", compressed),
        ("two where one is allowed", [whole.clone(), whole.clone()].concat()),
        ("none", Vec::new()),
    ] {
        let request = client.post(format!("http://{address}/gavel.v1.ItemService/WatchItem"));
        let reply = request.header(CONTENT_TYPE, "application/connect+proto").body(body).send();
        let reply = tokio::time::timeout(Duration::from_secs(20), reply).await.expect("answered").expect("answered");
        let end = reply.text().await.expect("read");
        // Compressed, but nobody said how: the protocols want INTERNAL for that.
        let of_the_sender =
            ["invalid_argument", "resource_exhausted", "unimplemented", "without connect-content-encoding"];
        assert!(of_the_sender.iter().any(|code| end.contains(code)), "{what}: {end:?}");
    }
    // A connection that ends in the middle of an HTTP/2 frame.
    for preface in
        ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x10\x01", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nno frame at all, surely"]
    {
        let mut stream = TcpStream::connect(&address).await.expect("connected");
        stream.write_all(preface.as_bytes()).await.expect("written");
        drop(stream);
    }
    still_serves(&system, &api, &item, 1_000).await;
}

#[tokio::test]
async fn who_sends_a_header_drop_by_drop_is_cut_off_by_the_gateway() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item = item(&system, &api).await;
    let cut_off = async |kind| {
        let gateway = RunningGateway::open(kind, &[&service]).await;
        let mut client = Command::new("openssl");
        client.args(["s_client", "-quiet", "-no_ign_eof", "-connect", gateway.url.trim_start_matches("https://")]);
        client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut client = client.spawn().expect("openssl runs");
        let mut drops = client.stdin.take().expect("piped");
        drops.write_all(b"GET /api/items/1 HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.expect("written");
        let ended = tokio::time::timeout(Duration::from_secs(30), client.wait()).await;
        assert!(ended.is_ok(), "{kind:?} waits for ever");
        drop(drops);
    };
    tokio::join!(cut_off(Kind::Nginx), cut_off(Kind::Haproxy));
    still_serves(&system, &api, &item, 1_000).await;
}
