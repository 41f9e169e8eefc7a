//! Traces: one from a request through outbox and broker to who applies its events, where a collector is named. Bids wait
//! for no collector.
use chrono::{TimeDelta, Utc};
use gavel_tests::{Api, Collector, Process, System, collector::Span, eventually};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use std::time::Duration;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// Spans are sent so often, in milliseconds.
const SOON: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "50");
/// A time after which nothing would be sent within a test.
const LATE: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "600000");

async fn bidder(system: &System, variables: &[(&str, &str)]) -> (Process, Api, String) {
    let (service, api) = system.service_with(variables).await;
    let seller = api.with_token(system.token("sam", "seller"));
    let item = seller.create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id;
    (service, api.with_token(system.token("alice", "bidder")), item)
}

fn traced(api: &Api, trace: &str, flags: &str) -> Api {
    api.with_header("traceparent", &format!("00-{trace}-{CALLER}-{flags}"))
}

fn named<'a>(spans: &'a [Span], name: &str) -> Option<&'a Span> {
    spans.iter().find(|span| span.name == name)
}

#[tokio::test]
async fn a_bid_is_one_trace_from_the_request_to_the_consumers() {
    let (system, collector) = (System::new().await, Collector::start());
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()), SOON];
    let (_service, alice, item) = bidder(&system, &variables).await;
    let _worker = system.worker_with(&[], &variables).await;
    traced(&alice, TRACE, "01").with_header("x-correlation-id", "lamp-1").bid(&item, 1_000).await.expect("accepted");

    let names = ["place_bid", "send bid.accepted", "apply_user_stats", "project_item"];
    let is_whole = |spans: &Vec<Span>| names.iter().all(|name| named(spans, name).is_some());
    let spans = eventually("the whole trace", || async { collector.trace(TRACE) }, is_whole).await;
    let [bid, sent, stats, read_model] = names.map(|name| named(&spans, name).expect("it is there"));
    assert_eq!((bid.kind, bid.service.as_str(), bid.parent.as_str()), (SpanKind::Server, "bid-service", CALLER));
    assert_eq!((sent.kind, sent.service.as_str()), (SpanKind::Producer, "bid-worker"));
    assert_eq!(sent.parent, bid.span_id, "the outbox carries it");
    for consumer in [stats, read_model] {
        assert_eq!((consumer.kind, consumer.service.as_str()), (SpanKind::Consumer, "bid-worker"));
        assert_eq!(consumer.parent, sent.span_id, "the broker carries it");
        assert!(consumer.times.0 >= sent.times.0 && consumer.times.1 >= consumer.times.0, "{consumer:?} {sent:?}");
        assert_eq!(consumer.attribute("messaging.system"), Some("rabbitmq"));
    }
    assert!(sent.times.0 >= bid.times.0, "{sent:?} {bid:?}");
    assert_eq!(bid.attribute("gavel.correlation_id"), Some("lamp-1"));
    assert_eq!(bid.attribute("gavel.outcome"), Some("ok"));
}

#[tokio::test]
async fn bids_of_one_transaction_have_a_span_each_and_one_together() {
    let (system, collector) = (System::new().await, Collector::start());
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()), SOON];
    let (_service, alice, item) = bidder(&system, &variables).await;
    let bids = |round: i64| {
        let (alice, item) = (&alice, &item);
        futures_util::future::join_all(
            (1..=40).map(move |n| async move { drop(alice.bid(item, (round * 100 + n) * 1_000).await) }),
        )
    };
    for round in 0..5 {
        bids(round).await;
    }
    let is_together = |spans: &Vec<Span>| named(spans, "place_bid together").is_some();
    let spans = eventually("a batch", || async { collector.spans() }, is_together).await;
    let together = named(&spans, "place_bid together").expect("it is there").clone();
    assert!(together.links.len() > 1, "{together:?}");
    let is_linked = |span: &Span| span.name == "place_bid" && together.links.contains(&span.span_id);
    let all_linked = |spans: &Vec<Span>| spans.iter().filter(|span| is_linked(span)).count() == together.links.len();
    eventually("a span for each", || async { collector.spans() }, all_linked).await;
}

#[tokio::test]
async fn who_says_no_is_not_traced_and_the_last_spans_are_sent_at_the_end() {
    let (system, collector) = (System::new().await, Collector::start());
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()), LATE];
    let (mut service, alice, item) = bidder(&system, &variables).await;
    let (silent, spoken) = ("1".repeat(32), "2".repeat(32));
    traced(&alice, &silent, "00").bid(&item, 1_000).await.expect("accepted");
    traced(&alice, &spoken, "01").bid(&item, 1).await.expect_err("too low");
    assert_eq!(collector.spans().len(), 0, "nothing yet");
    service.terminate();
    assert!(service.ended().await.success());
    assert!(collector.trace(&silent).is_empty());
    let refused = collector.trace(&spoken);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].attribute("gavel.outcome"), Some("refused"));
}

#[tokio::test]
async fn a_share_of_none_traces_nothing() {
    let (system, collector) = (System::new().await, Collector::start());
    let none = ("OTEL_TRACES_SAMPLER_ARG", "0");
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()), none, SOON];
    let (mut service, alice, item) = bidder(&system, &variables).await;
    traced(&alice, TRACE, "01").bid(&item, 1_000).await.expect("accepted");
    service.terminate();
    assert!(service.ended().await.success());
    assert_eq!(collector.spans().len(), 0);
}

#[tokio::test]
async fn a_collector_that_is_down_costs_no_bid_and_no_drain() {
    let system = System::new().await;
    // The port of TCP's discard service, where nobody listens.
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), SOON];
    let (mut service, alice, item) = bidder(&system, &variables).await;
    alice.bid(&item, 1_000).await.expect("accepted");
    let says_so = |service: &Process| service.output().iter().any(|line| line.contains("traces are lost"));
    eventually("the log says so", || async { says_so(&service) }, |said| *said).await;
    service.terminate();
    assert!(service.ended_within(Duration::from_secs(10)).await.success());
}
