//! Traces, where they are asked for: what each run did and when goes to a collector as a span, one trace from a request
//! through outbox and broker to whoever applies its events. <https://opentelemetry.io/docs/specs/otel/trace/api/>
//!
//! A span has the ids that its run was given anyway. Where nobody asked, a run costs one look at [`TRACES`].
mod collector;
mod span;

use crate::{
    Invocation, Result,
    base::{
        error::outcome_of,
        invocation::{child_of, is_traceparent},
        spec::Spec,
    },
    config::TraceConfig,
};
use collector::Collector;
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Link, SpanContext},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    resource::EnvResourceDetector,
    trace::{BatchSpanProcessor, Sampler, SamplingDecision, ShouldSample, SpanProcessor},
};
use span::Span;
use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// What a span is linked to.
pub(crate) type Links = Vec<Link>;

/// A process has one log, and one way to a collector.
static TRACES: OnceLock<Traces> = OnceLock::new();

/// The longest that a process waits at its end until the collector has the last spans.
const LAST_WORDS: Duration = Duration::from_secs(2);

struct Traces {
    processor: BatchSpanProcessor,
    sampler: Sampler,
    scope: InstrumentationScope,
}

/// Starts sending traces, where it is said where to. Once, inside a tokio runtime.
pub(crate) fn start(process: &'static str, config: &TraceConfig) -> anyhow::Result<()> {
    let Some(endpoint) = &config.endpoint else { return Ok(()) };
    let exporter = SpanExporter::builder().with_http().with_http_client(Collector::new()?);
    let exporter = exporter.with_endpoint(format!("{endpoint}/v1/traces")).build()?;
    let mut processor = BatchSpanProcessor::builder(exporter).build();
    processor.set_resource(&resource(process));
    let scope = InstrumentationScope::builder("gavel").with_version(env!("CARGO_PKG_VERSION")).build();
    let traces = Traces { processor, sampler: Sampler::TraceIdRatioBased(config.ratio), scope };
    anyhow::ensure!(TRACES.set(traces).is_ok(), "traces were started before");
    tracing::info!(endpoint, ratio = config.ratio, "traces go to a collector");
    Ok(())
}

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` come before what is known here.
fn resource(process: &'static str) -> Resource {
    let name = std::env::var("OTEL_SERVICE_NAME").ok().map(|name| KeyValue::new("service.name", name));
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", process),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", crate::base::host::name()),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_attributes(name)
        .build()
}

/// Sends what has not been sent yet, for some time.
pub(crate) async fn finish() {
    let Some(traces) = TRACES.get() else { return };
    let sent = tokio::task::spawn_blocking(|| traces.processor.shutdown_with_timeout(LAST_WORDS)).await;
    if !matches!(sent, Ok(Ok(()))) {
        tracing::warn!("the last traces are lost: the collector did not take them within {LAST_WORDS:?}");
    }
}

/// A run has ended.
pub(crate) fn ended(spec: &Spec, invocation: &Invocation, outcome: &'static str) {
    if let Some(traces) = TRACES.get() {
        traces.send(&invocation.traceparent, |context| Span::of_run(context, spec, invocation, outcome));
    }
}

/// Each run of a batch has ended, with its verdict.
pub(crate) fn all_ended<'a, T: 'a>(
    spec: &Spec,
    invocations: impl Iterator<Item = &'a Invocation>,
    verdicts: &[Result<T>],
) {
    if TRACES.get().is_none() {
        return;
    }
    for (invocation, verdict) in invocations.zip(verdicts) {
        ended(spec, invocation, outcome_of(verdict));
    }
}

/// The places of these runs in their traces.
pub(crate) fn links<'a>(members: impl Iterator<Item = &'a Invocation>) -> Links {
    let Some(traces) = TRACES.get() else { return Vec::new() };
    let contexts = members.filter_map(|member| span::context(&member.traceparent));
    contexts.filter(|context| traces.keeps(context)).map(Link::with_context).collect()
}

/// A transaction for many runs has ended: a span of its own, linked to each of theirs.
pub(crate) fn together_ended(
    spec: &Spec,
    invocation: &Invocation,
    begun: Instant,
    links: Links,
    outcome: &'static str,
) {
    if let Some(traces) = TRACES.get() {
        let span = |context| Span::of_batch(context, spec, invocation, links, outcome).since(begun);
        traces.send(&invocation.traceparent, span);
    }
}

/// A message is to be published: the span that it goes out with instead of its own, if it is traced.
pub(crate) fn leaving(traceparent: &str) -> Option<String> {
    let traces = TRACES.get().filter(|_| is_traceparent(traceparent))?;
    span::context(traceparent).filter(|context| traces.keeps(context)).map(|_| child_of(Some(traceparent)))
}

/// A message was published, with the span that [`leaving`] gave.
pub(crate) fn left((message_id, routing_key): (Uuid, &str), parent: &str, traceparent: &str, begun: Instant) {
    if let Some(traces) = TRACES.get() {
        traces.send(traceparent, |context| Span::of_message(context, message_id, routing_key, parent).since(begun));
    }
}

impl Traces {
    fn send(&self, traceparent: &str, span: impl FnOnce(SpanContext) -> Span) {
        if let Some(context) = span::context(traceparent).filter(|context| self.keeps(context)) {
            self.processor.on_end(span(context).ended(self.scope.clone()));
        }
    }

    /// Not where its caller said no. Otherwise its trace's id decides: a stranger who says yes to each of his calls is
    /// believed as much as one who says nothing.
    fn keeps(&self, context: &SpanContext) -> bool {
        let sampled = || self.sampler.should_sample(None, context.trace_id(), "", &span::ANY_KIND, &[], &[]);
        context.is_sampled() && sampled().decision == SamplingDecision::RecordAndSample
    }
}
