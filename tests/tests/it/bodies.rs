//! Bodies that never end, come drop by drop, or are many: none is held for longer than it may take, whatever time its
//! client names, and all together no more than the process has for them.
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use gavel_gateway::Kind;
use gavel_tests::{Api, RunningGateway, System, frame};
use h2::{SendStream, client::SendRequest};
use http::{Request, Response, header::CONTENT_TYPE};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Far longer than a body may take here.
const FAR_TOO_LONG: Duration = Duration::from_secs(20);
const SHORT: (&str, &str) = ("GAVEL_BODY_TIMEOUT_MS", "1500");

async fn connect(address: &str) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("connected");
    let (send, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    send
}

/// A call whose client would wait for longer than anybody lives.
async fn begin(client: &SendRequest<Bytes>, url: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let request = Request::post(format!("{url}/gavel.v1.ItemService/GetItem"));
    let request = request.header(CONTENT_TYPE, "application/grpc").header("te", "trailers");
    let request = request.header("grpc-timeout", "99999999H").body(()).expect("a request");
    client.clone().ready().await.expect("ready").send_request(request, false).expect("sent")
}

/// The gRPC status of an answer without a message.
fn status(answer: &Response<h2::RecvStream>) -> Option<&str> {
    answer.headers().get("grpc-status").and_then(|value| value.to_str().ok())
}

/// Sends a byte now and then for as long as they are taken.
async fn drip(mut body: SendStream<Bytes>) {
    while body.send_data(Bytes::from_static(b"\0"), false).is_ok() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn still_serves(system: &System, api: &Api) {
    let seller = api.with_token(system.token("sam", "seller"));
    let item = seller.create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id;
    api.with_token(system.token("zoe", "bidder")).bid(&item, 1_000).await.expect("accepted");
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up_whatever_time_its_client_names() {
    let system = System::new().await;
    let (service, api) = system.service_with(&[SHORT]).await;
    let (address, began) = (service.address().await, Instant::now());
    let (client, url) = (connect(&address).await, format!("http://{address}"));
    let (silent, _kept) = begin(&client, &url).await;
    let (dripping, body) = begin(&client, &url).await;
    tokio::spawn(drip(body));
    for (what, answer) in [("silent", silent), ("dripping", dripping)] {
        let answer = tokio::time::timeout(FAR_TOO_LONG, answer).await.expect("it is given up");
        // DEADLINE_EXCEEDED
        assert_eq!(status(&answer.expect("answered")), Some("4"), "{what}");
    }
    assert!(began.elapsed() >= Duration::from_millis(1_300), "not sooner than said: {:?}", began.elapsed());
    still_serves(&system, &api).await;
}

#[tokio::test]
async fn through_nginx_a_body_that_never_ends_is_given_up_as_well() {
    is_given_up_through(Kind::Nginx).await;
}

#[tokio::test]
async fn through_haproxy_a_body_that_never_ends_is_given_up_as_well() {
    is_given_up_through(Kind::Haproxy).await;
}

async fn is_given_up_through(kind: Kind) {
    let system = System::new().await;
    let (service, api) = system.service_with(&[SHORT]).await;
    let gateway = RunningGateway::open(kind, &[&service]).await;
    let client = gateway.h2().await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        let (answer, body) = begin(&client, &gateway.url).await;
        tokio::spawn(drip(body));
        answers.push(answer);
    }
    let settled = join_all(answers.into_iter().map(|answer| tokio::time::timeout(FAR_TOO_LONG, answer))).await;
    for answer in settled {
        // Answered, or reset by the gateway over the answer that came early.
        if let Ok(answer) = answer.expect("it is given up") {
            assert!(status(&answer).is_some_and(|status| status != "0") || !answer.status().is_success(), "{answer:?}");
        }
    }
    still_serves(&system, &api).await;
}

#[tokio::test]
async fn bodies_that_are_many_are_refused_beyond_what_the_process_has_for_them() {
    let system = System::new().await;
    let budget = [("GAVEL_BODY_TIMEOUT_MS", "4000"), ("GAVEL_BODY_BYTES", "1048576")];
    let (service, api) = system.service_with(&budget).await;
    let address = service.address().await;
    let url = format!("http://{address}");
    // Whole but for one byte, and 60 KiB each: of forty at most seventeen fit.
    let message = frame(0, &vec![0; 60 * 1_024]);
    let most = message.slice(..message.len() - 1);
    let clients = join_all((0..10).map(|_| connect(&address))).await;
    let mut calls = Vec::new();
    for client in &clients {
        for _ in 0..4 {
            let (answer, mut body) = begin(client, &url).await;
            body.reserve_capacity(most.len());
            body.send_data(most.clone(), false).expect("sent");
            calls.push((answer, body));
        }
    }
    let answers = join_all(calls.into_iter().map(|(answer, body)| async move {
        let answer = tokio::time::timeout(FAR_TOO_LONG, answer).await.expect("answered");
        drop(body);
        status(&answer.expect("answered")).map(ToOwned::to_owned)
    }));
    let answers: Vec<_> = answers.await.into_iter().flatten().collect();
    let refused = answers.iter().filter(|status| *status == "8").count();
    assert!((23..40).contains(&refused), "RESOURCE_EXHAUSTED {refused} times: {answers:?}");
    assert_eq!(answers.iter().filter(|status| *status == "4").count(), 40 - refused, "the others were too slow");
    still_serves(&system, &api).await;
}
