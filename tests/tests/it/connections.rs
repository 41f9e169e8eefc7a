//! Connections that take a place and do nothing with it are given up; those in use are not.
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use gavel_proto::v1::{WatchItemRequest, WatchItemResponse, watch_item_response::Frame};
use gavel_tests::{Process, System, frame};
use h2::{RecvStream, client::SendRequest};
use http::{Request, header::CONTENT_TYPE};
use prost::Message;
use std::{
    future::poll_fn,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedReadHalf},
    task::JoinHandle,
};

/// Nobody waits for so long, however busy the machine is.
const FAR_TOO_LONG: Duration = Duration::from_mins(1);
const NEVER: (&str, &str) = ("GAVEL_IDLE_TIMEOUT_MS", "86400000");
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// Says `words` at the beginning and, if asked to, one byte more every now and then.
async fn says(service: &Process, words: &[u8], drips: bool) -> OwnedReadHalf {
    let (read, mut write) = TcpStream::connect(service.address().await).await.expect("connected").into_split();
    write.write_all(words).await.expect("sent");
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(40));
        loop {
            tick.tick().await;
            if drips && write.write_all(b"x").await.is_err() {
                return;
            }
        }
    });
    read
}

/// Waits until the service closes the connection; how long that took.
async fn closes(mut read: OwnedReadHalf) -> Duration {
    let began = Instant::now();
    let ended = async { while read.read(&mut [0; 1_024]).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(FAR_TOO_LONG, ended).await.expect("the connection is closed");
    began.elapsed()
}

#[tokio::test]
async fn who_says_nothing_or_no_more_than_a_word_is_cut_off() {
    let system = System::new().await;
    let (service, _) = system.service_with(&[("GAVEL_GREETING_TIMEOUT_MS", "500"), NEVER]).await;
    for words in [&b""[..], b"GET / HT", &PREFACE[..20]] {
        let took = closes(says(&service, words, false).await).await;
        assert!(took >= Duration::from_millis(300), "{words:?}: after {took:?} already");
    }
}

#[tokio::test]
async fn who_sends_a_header_drop_by_drop_is_cut_off() {
    let system = System::new().await;
    let (service, _) = system.service_with(&[("GAVEL_HEADERS_TIMEOUT_MS", "700"), NEVER]).await;
    let took = closes(says(&service, b"GET /items/1 HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", true).await).await;
    assert!(took >= Duration::from_millis(400), "after {took:?} already");
}

#[tokio::test]
async fn who_stops_in_the_middle_of_a_frame_or_answers_no_ping_is_cut_off() {
    let system = System::new().await;
    let (service, _) = system.service_with(&[("GAVEL_PING_MS", "500"), NEVER]).await;
    let half_a_frame = b"\0\0\x20\x01\x04\0\0\0\x01half of it";
    for more in [&b""[..], half_a_frame] {
        let took = closes(says(&service, &[PREFACE, SETTINGS, more].concat(), false).await).await;
        assert!(took >= Duration::from_millis(600), "after {took:?} already");
    }
}

#[tokio::test]
async fn who_takes_no_answers_gives_their_place_back_in_the_end() {
    let system = System::new().await;
    // There is one place, and it is taken by somebody who asks for much and reads nothing of it.
    let short = [("GAVEL_CONNECTIONS", "1"), ("GAVEL_IDLE_TIMEOUT_MS", "500"), ("GAVEL_PING_MS", "300")];
    let (service, _) = system.service_with(&short).await;
    let address = service.address().await;
    let mut greedy = TcpStream::connect(&address).await.expect("connected");
    let asked = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // Until it can't even ask any more, since the service does not read on before it could answer.
    while tokio::time::timeout(Duration::from_secs(1), greedy.write_all(asked)).await.is_ok_and(|sent| sent.is_ok()) {}
    let answer = reqwest::get(format!("http://{address}/healthz"));
    let answer = tokio::time::timeout(FAR_TOO_LONG, answer).await.expect("there is a place again").expect("answered");
    assert_eq!(answer.text().await.expect("text"), "ok\n");
    drop(greedy);
}

async fn connect(service: &Process) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(service.address().await).await.expect("connected");
    let (send, connection) = h2::client::handshake(stream).await.expect("a handshake");
    (send, tokio::spawn(connection))
}

async fn watch(send: &SendRequest<Bytes>, item: &str) -> RecvStream {
    let request = Request::post("http://localhost/gavel.v1.ItemService/WatchItem");
    let request = request.header(CONTENT_TYPE, "application/grpc").header("te", "trailers").body(());
    let mut send = send.clone().ready().await.expect("ready");
    let (response, mut body) = send.send_request(request.expect("a request"), false).expect("sent");
    let asked = WatchItemRequest { item_id: item.to_owned(), known_version: 0 }.encode_to_vec();
    body.send_data(frame(0, &asked), true).expect("sent");
    response.await.expect("opened").into_body()
}

/// The version that the stream tells of next. The service sends each message in a frame of its own.
async fn next_version(stream: &mut RecvStream) -> i64 {
    loop {
        let chunk = tokio::time::timeout(FAR_TOO_LONG, stream.data()).await.expect("it goes on");
        let chunk = chunk.expect("not the end").expect("no error");
        stream.flow_control().release_capacity(chunk.len()).expect("taken");
        match WatchItemResponse::decode(&chunk[5..]).expect("a message").frame.expect("a frame") {
            Frame::Snapshot(item) => return item.version,
            Frame::Update(update) => return update.version,
            Frame::Heartbeat(_) => {}
        }
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_stream_is_not() {
    let system = System::new().await;
    let short = [("GAVEL_IDLE_TIMEOUT_MS", "1000"), ("GAVEL_PING_MS", "300"), ("GAVEL_HEARTBEAT_MS", "60000")];
    let (service, api) = system.service_with(&short).await;
    let _worker = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let seller = api.with_token(system.token("sam", "seller"));
    let item = seller.create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id;
    let (watching, _connection) = connect(&service).await;
    let mut stream = watch(&watching, &item).await;
    assert_eq!(next_version(&mut stream).await, 1);
    // Each of these lives longer than the pings' patience, and all together much longer than the idle time-out.
    for _ in 0..3 {
        let (_send, idle) = connect(&service).await;
        tokio::time::timeout(FAR_TOO_LONG, idle).await.expect("it is closed").expect("joined").expect("in order");
    }
    api.with_token(system.token("zoe", "bidder")).bid(&item, 1_000).await.expect("accepted");
    assert_eq!(next_version(&mut stream).await, 2);
}

#[tokio::test]
async fn a_stream_that_is_refused_in_the_middle_of_its_request_is_answered_and_not_reset() {
    let system = System::new().await;
    let (service, _) = system.service().await;
    let address = service.address().await;
    let stream = TcpStream::connect(&address).await.expect("connected");
    let (send, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/gavel.v1.ItemService/CreateItem"));
    let request = request.header(CONTENT_TYPE, "application/grpc").body(()).expect("a request");
    let mut send = send.ready().await.expect("ready");
    let (response, mut body) = send.send_request(request, false).expect("sent");
    // Many times what a request may have, as far as the service makes room for it.
    let (message, mut done) = (frame(0, &vec![b' '; 1_024 * 1_024]), 0);
    while done < message.len() {
        body.reserve_capacity(message.len() - done);
        let room = poll_fn(|context| body.poll_capacity(context));
        let room = tokio::time::timeout(FAR_TOO_LONG, room).await.expect("it makes room");
        let room = room.expect("the stream is open").expect("no reset");
        let next = message.len().min(done + room);
        body.send_data(message.slice(done..next), next == message.len()).expect("sent");
        done = next;
    }
    let answer = tokio::time::timeout(FAR_TOO_LONG, response).await.expect("it is answered").expect("no reset");
    let (head, mut rest) = answer.into_parts();
    while let Some(data) = rest.data().await {
        data.expect("no reset");
    }
    let trailers = rest.trailers().await.expect("no reset").unwrap_or_default();
    let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).expect("a status");
    assert_eq!(status, "8", "RESOURCE_EXHAUSTED");
}

#[tokio::test]
async fn a_call_that_stops_in_the_middle_of_its_request_is_answered_at_its_deadline() {
    let system = System::new().await;
    let (service, _) = system.service().await;
    let address = service.address().await;
    let stream = TcpStream::connect(&address).await.expect("connected");
    let (send, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/gavel.v1.ItemService/GetItem"));
    let request = request.header(CONTENT_TYPE, "application/json").header("connect-timeout-ms", "200");
    let mut send = send.ready().await.expect("ready");
    let began = Instant::now();
    let (response, mut body) = send.send_request(request.body(()).expect("a request"), false).expect("sent");
    body.send_data(Bytes::from_static(b"{\"itemId\":"), false).expect("sent");
    let answer = tokio::time::timeout(FAR_TOO_LONG, response).await.expect("it is answered").expect("no reset");
    assert_eq!(answer.status(), 504, "deadline_exceeded");
    // What a client that goes on sending is given would be five.
    assert!(began.elapsed() < Duration::from_secs(4), "after {:?}", began.elapsed());
}

#[tokio::test]
async fn who_is_still_sending_what_was_refused_gets_the_answer_and_no_reset() {
    let system = System::new().await;
    let (service, _) = system.service().await;
    let mut stream = TcpStream::connect(service.address().await).await.expect("connected");
    let body = vec![b' '; 100 * 1_024];
    let (beginning, rest) = body.split_at(80 * 1_024);
    let head = format!(
        "POST /gavel.v1.ItemService/CreateItem HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(beginning).await.expect("sent");
    let (mut answer, mut chunk) = (String::new(), [0; 1_024]);
    while !answer.contains("resource_exhausted") {
        let read = tokio::time::timeout(FAR_TOO_LONG, stream.read(&mut chunk)).await.expect("it is answered");
        let read = read.expect("no reset");
        assert!(read > 0, "it ends with {answer:?}");
        answer += &String::from_utf8_lossy(&chunk[..read]);
    }
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    let closed = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut chunk)).await;
    assert!(closed.is_err(), "it is closed in the middle of the request, {closed:?}");
    stream.write_all(rest).await.expect("sent to the end");
    let ended = tokio::time::timeout(FAR_TOO_LONG, stream.read(&mut chunk)).await.expect("the connection is closed");
    assert_eq!(ended.expect("no reset"), 0);
}
