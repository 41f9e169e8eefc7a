//! One port, three protocols: what a browser's and a shell's clients send, byte for byte.
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::{Buf, Bytes};
use chrono::{TimeDelta, Utc};
use flate2::{Compression, write::GzEncoder};
use gavel_proto::{
    health_v1::{HealthCheckRequest, health_check_response::ServingStatus},
    v1::{BidRefused, ListHandlersRequest, ListHandlersResponse, PlaceBidRequest, PlaceBidResponse},
};
use gavel_tests::{System, frame, settle};
use poem_grpc::Code;
use prost::Message;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use std::io::{Read, Write};
use uuid::Uuid;

/// A service, an item on it, and how to reach it by plain HTTP.
struct Edge {
    system: System,
    _service: gavel_tests::Process,
    base: String,
    ops_base: String,
    item_id: String,
}

impl Edge {
    async fn new() -> Self {
        let system = System::new().await;
        let (service, api) = system.service().await;
        let seller = api.with_token(system.token("sam", "seller"));
        let item = seller.create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
        let base = format!("http://{}", service.address().await);
        let ops_base = format!("http://{}", service.ops_address().await);
        Self { system, _service: service, base, ops_base, item_id: item.item_id }
    }

    async fn post(
        &self,
        method: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response {
        let token = format!("Bearer {}", self.system.token("alice", "bidder"));
        let base = if method.starts_with("gavel.v1.OpsService/") { &self.ops_base } else { &self.base };
        let mut request = Client::new().post(format!("{base}/{method}")).header("content-type", content_type);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.into()).send().await.expect("answered")
    }

    async fn json(&self, method: &str, body: Value) -> (u16, Value) {
        let response =
            self.post(method, "application/json", &[("connect-protocol-version", "1")], body.to_string()).await;
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }
}

const PLACE_BID: &str = "gavel.v1.BidService/PlaceBid";
const GET_ITEM: &str = "gavel.v1.ItemService/GetItem";

/// The frames of a whole body: flags and message.
fn frames(mut body: Bytes) -> Vec<(u8, Bytes)> {
    let mut frames = Vec::new();
    while body.has_remaining() {
        let (flags, length) = (body.get_u8(), body.get_u32());
        frames.push((flags, body.split_to(length as usize)));
    }
    frames
}

#[tokio::test]
async fn a_bid_is_one_bid_in_every_protocol_and_codec() {
    let edge = Edge::new().await;
    let key = Uuid::new_v4().to_string();
    let bid = PlaceBidRequest { item_id: edge.item_id.clone(), max_amount_minor: 1_000, idempotency_key: key.clone() };
    let body = json!({ "itemId": edge.item_id, "maxAmountMinor": "1000", "idempotencyKey": key });
    let (status, in_json) = edge.json(PLACE_BID, body).await;
    assert_eq!((status, &in_json["outcome"]), (200, &json!("BID_OUTCOME_LEADING")), "{in_json}");
    assert_eq!(in_json["sequence"], "2", "64-bit integers are strings in JSON: {in_json}");

    let connect = edge.post(PLACE_BID, "application/proto", &[], bid.encode_to_vec()).await;
    assert_eq!(connect.headers()["content-type"], "application/proto");
    let connect = PlaceBidResponse::decode(connect.bytes().await.expect("read")).expect("a reply");
    assert_eq!(connect.bid_id, in_json["bidId"].as_str().expect("an id"), "the same key, the same answer");

    let web = edge.post(PLACE_BID, "application/grpc-web+proto", &[], frame(0, &bid.encode_to_vec())).await;
    assert_eq!(web.headers()["content-type"], "application/grpc-web+proto");
    let frames = frames(web.bytes().await.expect("read"));
    assert_eq!(PlaceBidResponse::decode(&frames[0].1[..]).expect("a reply"), connect);
    assert_eq!(frames[1].0, 0x80, "trailers come in a frame");
    assert!(String::from_utf8_lossy(&frames[1].1).contains("grpc-status: 0"));

    let (_other, api) = edge.system.service().await;
    let api = api.with_token(edge.system.token("alice", "bidder"));
    assert_eq!(api.bid_with_key(&edge.item_id, 1_000, &key).await.expect("gRPC"), connect);
}

#[tokio::test]
async fn a_refusal_has_its_typed_detail_in_every_protocol() {
    let edge = Edge::new().await;
    let bid = || PlaceBidRequest {
        item_id: edge.item_id.clone(),
        max_amount_minor: 1,
        idempotency_key: Uuid::new_v4().to_string(),
    };
    let body = json!({ "itemId": edge.item_id, "maxAmountMinor": 1, "idempotencyKey": Uuid::new_v4() });
    let (status, error) = edge.json(PLACE_BID, body).await;
    assert_eq!((status, &error["code"]), (400, &json!("failed_precondition")), "{error}");
    let detail = &error["details"][0];
    assert_eq!(detail["type"], "gavel.v1.BidRefused");
    let value = STANDARD_NO_PAD.decode(detail["value"].as_str().expect("base64")).expect("base64");
    let refused = BidRefused::decode(&value[..]).expect("the detail");
    assert_eq!(refused.next_minimum_minor, 1_000);

    let web = edge.post(PLACE_BID, "application/grpc-web", &[], frame(0, &bid().encode_to_vec())).await;
    let body = web.bytes().await.expect("read");
    let trailers = frames(body).into_iter().find(|(flags, _)| flags & 0x80 != 0).expect("trailers").1;
    let trailers = String::from_utf8_lossy(&trailers).into_owned();
    assert!(trailers.contains("grpc-status: 9") && trailers.contains("grpc-status-details-bin: "), "{trailers}");
}

#[tokio::test]
async fn reads_can_be_got_and_writes_can_not() {
    let edge = Edge::new().await;
    let get = |method: &str, message: String| {
        let url = format!("{}/{method}", edge.base);
        let query = [("connect", "v1"), ("encoding", "json"), ("message", message.as_str())];
        let request = Client::new().get(url).query(&query);
        async { request.send().await.expect("answered") }
    };
    let read = get(GET_ITEM, json!({ "itemId": edge.item_id }).to_string()).await;
    assert_eq!(read.status(), 200);
    let read: Value = read.json().await.expect("JSON");
    assert_eq!(read["item"]["title"], "A lamp");
    let written = get(PLACE_BID, json!({ "itemId": edge.item_id }).to_string()).await;
    assert_eq!((written.status().as_u16(), &written.headers()["allow"]), (405, &"POST".parse().expect("a value")));
    let put = Client::new().put(format!("{}/{GET_ITEM}", edge.base)).send().await.expect("answered");
    assert_eq!((put.status().as_u16(), &put.headers()["allow"]), (405, &"GET, POST".parse().expect("a value")));
    let message = json!({ "itemId": edge.item_id }).to_string();
    let twice = [("connect", "v1"), ("encoding", "json"), ("message", message.as_str()), ("message", "{}")];
    let twice = Client::new().get(format!("{}/{GET_ITEM}", edge.base)).query(&twice).send().await.expect("answered");
    assert_eq!(twice.status(), 400);
    let said = twice.text().await.expect("text");
    assert!(said.contains("\\\"message\\\" is given twice"), "{said}");
    let route = Client::new().post(format!("{}/items/{}", edge.base, edge.item_id)).send().await.expect("answered");
    assert_eq!((route.status().as_u16(), &route.headers()["allow"]), (405, &"GET, HEAD".parse().expect("a value")));
    let odd = Client::new().get(format!("{}/items/nonsense", edge.base)).send().await.expect("answered");
    let said = odd.text().await.expect("text");
    assert!(said.contains("item_id") && said.contains("nonsense"), "{said}");
}

#[tokio::test]
async fn replies_and_requests_are_compressed_where_both_sides_can() {
    let edge = Edge::new().await;
    let list = ListHandlersRequest {}.encode_to_vec();
    let ops = format!("Bearer {}", edge.system.token("olga", "ops"));
    let headers = [("authorization", ops.as_str()), ("accept-encoding", "gzip"), ("content-encoding", "gzip")];
    let response = edge.post("gavel.v1.OpsService/ListHandlers", "application/proto", &headers, gzip(&list)).await;
    assert_eq!(response.headers()["content-encoding"], "gzip", "a long reply");
    let mut plain = Vec::new();
    let body = response.bytes().await.expect("read");
    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("gzip");
    let handlers = ListHandlersResponse::decode(&plain[..]).expect("a reply").handlers;
    assert!(handlers.iter().any(|handler| handler.name == "place_bid"));
    let unknown = edge.post(GET_ITEM, "application/proto", &[("content-encoding", "br")], Bytes::new()).await;
    let error: Value = unknown.json().await.expect("JSON");
    assert_eq!(error["code"], "unimplemented", "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("br")), "{error}");
}

#[tokio::test]
async fn what_is_unknown_malformed_or_too_large_gets_an_answer_of_its_protocol() {
    let edge = Edge::new().await;
    let (status, error) = edge.json("gavel.v1.BidService/Steal", json!({})).await;
    assert_eq!((status, &error["code"]), (404, &json!("unimplemented")), "{error}");
    let grpc = edge.post("gavel.v1.BidService/Steal", "application/grpc", &[], frame(0, b"")).await;
    assert_eq!(grpc.headers()["grpc-status"], "12");
    let codec = edge.post(GET_ITEM, "application/xml", &[], "<item/>").await;
    assert_eq!(codec.status(), 415);
    let (status, error) = edge.json(GET_ITEM, json!({ "itemId": 7 })).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_argument")), "{error}");
    let garbage = edge.post(GET_ITEM, "application/proto", &[], vec![0xff_u8; 40]).await;
    let error: Value = garbage.json().await.expect("JSON");
    assert_eq!(error["code"], "invalid_argument", "{error}");
    let huge = edge.post(GET_ITEM, "application/proto", &[], vec![b'x'; 100_000]).await;
    let (pushback, again) = (huge.headers()["grpc-retry-pushback-ms"].clone(), huge.headers().get("retry-after"));
    assert_eq!((pushback.to_str().ok(), again), (Some("-1"), None), "the same again would be refused again");
    let (status, error): (u16, Value) = (huge.status().as_u16(), huge.json().await.expect("JSON"));
    assert_eq!((status, &error["code"]), (429, &json!("resource_exhausted")), "{error}");
    let nowhere = reqwest::get(format!("{}/favicon.ico", edge.base)).await.expect("answered");
    assert_eq!(nowhere.status(), 404);
    assert_eq!(Client::new().get(format!("{}/{PLACE_BID}", edge.base)).send().await.expect("answered").status(), 405);
}

#[tokio::test]
async fn every_answer_says_under_which_id_to_look_for_it() {
    let edge = Edge::new().await;
    let mine: &[(&str, &str)] = &[("x-correlation-id", "mine-1")];
    let answers = [
        edge.post("gavel.v1.BidService/Steal", "application/json", mine, "{}").await,
        edge.post("gavel.v1.BidService/Steal", "application/grpc", mine, frame(0, b"")).await,
        edge.post(GET_ITEM, "application/grpc", mine, vec![0, 0, 0]).await,
        edge.post(GET_ITEM, "application/xml", mine, "<item/>").await,
        edge.post(GET_ITEM, "application/proto", mine, vec![b'x'; 100_000]).await,
        edge.post(GET_ITEM, "application/proto", &[mine[0], ("content-encoding", "br")], "").await,
        edge.post("nowhere", "text/plain", mine, "").await,
    ];
    for answer in answers {
        assert_eq!(answer.headers()["x-correlation-id"], "mine-1", "{answer:?}");
    }
    let healthy = reqwest::get(format!("{}/healthz", edge.base)).await.expect("answered");
    assert!(!healthy.headers()["x-correlation-id"].is_empty(), "it is given one");
}

#[tokio::test]
async fn a_time_out_that_can_not_be_read_is_named() {
    let edge = Edge::new().await;
    for value in ["abc", "", "-1", "12345678901"] {
        let answer = edge.post(GET_ITEM, "application/json", &[("connect-timeout-ms", value)], "{}").await;
        let error: Value = answer.json().await.expect("JSON");
        let message = error["message"].as_str().unwrap_or_default();
        assert_eq!(error["code"], "invalid_argument", "{value:?}: {error}");
        assert!(message.contains("connect-timeout-ms") && message.contains("up to 10 digits"), "{message}");
    }
    for value in ["zzz", "S", "5", "123456789S", "5d"] {
        let answer = edge.post(GET_ITEM, "application/grpc", &[("grpc-timeout", value)], frame(0, b"")).await;
        assert_eq!(answer.headers()["grpc-status"], "3", "{value:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_compressed_request_that_would_not_fit_is_refused_before_it_is_unpacked() {
    let edge = Edge::new().await;

    let bomb = gzip(&vec![0; 8 << 20]);
    assert!(bomb.len() < 64 * 1_024, "{} bytes on the wire", bomb.len());
    let response = edge.post(GET_ITEM, "application/proto", &[("content-encoding", "gzip")], bomb).await;
    let error: Value = response.json().await.expect("JSON");
    assert_eq!(error["code"], "resource_exhausted", "{error}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes).expect("in memory");
    gzip.finish().expect("in memory")
}

#[tokio::test]
async fn deadlines_of_every_protocol_reach_the_database() {
    let edge = Edge::new().await;
    let mut holder = edge.system.db.begin().await.expect("a transaction");
    sqlx::query("SELECT item_id FROM items FOR UPDATE").execute(&mut *holder).await.expect("the lock");
    let bid = || PlaceBidRequest {
        item_id: edge.item_id.clone(),
        max_amount_minor: 1_000,
        idempotency_key: Uuid::new_v4().to_string(),
    };
    let connect =
        edge.post(PLACE_BID, "application/proto", &[("connect-timeout-ms", "300")], bid().encode_to_vec()).await;
    let (status, error): (u16, Value) = (connect.status().as_u16(), connect.json().await.expect("JSON"));
    assert_eq!((status, &error["code"]), (504, &json!("deadline_exceeded")), "{error}");
    let timeout = [("grpc-timeout", "300m")];
    let web = edge.post(PLACE_BID, "application/grpc-web", &timeout, frame(0, &bid().encode_to_vec())).await;
    let body = web.bytes().await.expect("read");
    let trailers = String::from_utf8_lossy(&frames(body).pop().expect("trailers").1).into_owned();
    assert!(trailers.contains("grpc-status: 4"), "{trailers}");
    let waiting = || edge.system.waiting_for_locks("bid-service");
    gavel_tests::eventually("nothing waits for the lock any more", waiting, |count| *count == 0).await;
    holder.rollback().await.expect("released");
}

#[tokio::test]
async fn a_stream_is_framed_in_every_protocol() {
    let edge = Edge::new().await;
    let timeout = [("connect-timeout-ms", "700")];
    let watch = edge.post("grpc.health.v1.Health/Watch", "application/connect+json", &timeout, frame(0, b"{}")).await;
    let frames = frames(watch.bytes().await.expect("read until the stream's end"));
    let first: Value = serde_json::from_slice(&frames[0].1).expect("JSON");
    assert_eq!(first["status"], "SERVING");
    let (flags, end) = frames.last().expect("an end");
    let end: Value = serde_json::from_slice(end).expect("JSON");
    assert_eq!((*flags, &end["error"]["code"]), (2, &json!("deadline_exceeded")), "{end}");
}

#[tokio::test]
async fn health_speaks_for_the_whole_for_each_service_and_for_each_dependency() {
    let edge = Edge::new().await;
    let (_other, api) = edge.system.service_with(&[("REDIS_URL", "redis://127.0.0.1:1")]).await;
    let check = |service: &str| {
        let (request, seen) = api.request(HealthCheckRequest { service: service.to_owned() });
        let health = api.health.clone();
        async move { settle(health.check(request).await, &seen).map(|reply| reply.status()) }
    };
    for service in ["", "gavel.v1.BidService", "grpc.health.v1.Health", "postgresql", "rabbitmq"] {
        assert_eq!(check(service).await.expect("known"), ServingStatus::Serving, "{service}");
    }
    assert_eq!(check("redis").await.expect("known"), ServingStatus::NotServing, "and the whole serves without it");
    assert_eq!(check("gavel.v1.Nothing").await.expect_err("unknown").code, Code::NotFound);
}

#[tokio::test]
async fn what_is_offered_can_be_asked_in_every_protocol_and_is_listed_once() {
    let edge = Edge::new().await;
    let client = Client::builder().http2_prior_knowledge().build().expect("a client");
    let asked = frame(0, br#"{"listServices":""}"#);
    for version in ["v1", "v1alpha"] {
        for content_type in ["application/grpc+json", "application/grpc-web+json", "application/connect+json"] {
            let path = format!("{}/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", edge.ops_base);
            let request = client.post(path).header("content-type", content_type).header("te", "trailers");
            let answer = request.body(asked.clone()).send().await.expect("answered");
            let frames = frames(answer.bytes().await.expect("read"));
            let listed: Value = serde_json::from_slice(&frames[0].1).expect("JSON");
            let services = listed["listServicesResponse"]["service"].as_array().expect("services");
            let mut names: Vec<_> = services.iter().map(|service| service["name"].as_str().expect("a name")).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{content_type}: {names:?}");
            for name in ["gavel.v1.ItemService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
                assert!(names.contains(&name), "{content_type}: {names:?}");
            }
        }
    }
}
