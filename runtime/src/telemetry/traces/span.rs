//! A span, as OpenTelemetry describes one.
use crate::{
    Invocation,
    base::{
        clock,
        spec::{Spec, Trigger},
    },
};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Link, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::{
    borrow::Cow,
    time::{Instant, SystemTime},
};
use uuid::Uuid;

/// Samplers ask for a kind, and the one used here does not look at it.
pub(super) const ANY_KIND: SpanKind = SpanKind::Internal;

/// Something that was begun, and ends now.
pub(super) struct Span {
    context: SpanContext,
    begun: Instant,
    parent: SpanId,
    kind: SpanKind,
    name: Cow<'static, str>,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
    status: Status,
}

impl Span {
    /// Of one run.
    pub(super) fn of_run(context: SpanContext, spec: &Spec, invocation: &Invocation, outcome: &'static str) -> Self {
        let kind = match spec.trigger {
            Trigger::Rpc(_) | Trigger::Http(_) => SpanKind::Server,
            Trigger::Message(_) | Trigger::Broadcast(_) | Trigger::Job(_) | Trigger::Sqlxmq(_) => SpanKind::Consumer,
            Trigger::Schedule(_) | Trigger::Poll(_) => SpanKind::Internal,
        };
        let mut attributes = attributes(spec, invocation, outcome);
        if matches!(spec.trigger, Trigger::Message(_)) {
            attributes.extend(messaging("process"));
        }
        Self {
            context,
            begun: invocation.begun,
            parent: invocation.parent_span.map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.to_be_bytes())),
            kind,
            name: spec.name.into(),
            attributes,
            links: Vec::new(),
            status: status(outcome),
        }
    }

    /// Of a transaction for many runs.
    pub(super) fn of_batch(
        context: SpanContext,
        spec: &Spec,
        invocation: &Invocation,
        links: Vec<Link>,
        outcome: &'static str,
    ) -> Self {
        let name = format!("{} together", spec.name).into();
        Self { kind: SpanKind::Internal, name, links, ..Self::of_run(context, spec, invocation, outcome) }
    }

    /// Of a message on its way to the broker.
    pub(super) fn of_message(own: SpanContext, id: Uuid, key: &str, parent: &str) -> Self {
        let parent = context(parent).map_or(SpanId::INVALID, |parent| parent.span_id());
        let mut attributes: Vec<_> = messaging("send").into();
        attributes.push(KeyValue::new("messaging.message.id", id.to_string()));
        attributes.push(KeyValue::new("messaging.rabbitmq.destination.routing_key", key.to_owned()));
        Self {
            context: own,
            begun: Instant::now(),
            parent,
            kind: SpanKind::Producer,
            name: format!("send {key}").into(),
            attributes,
            links: Vec::new(),
            status: Status::Unset,
        }
    }

    /// The same, begun then.
    pub(super) fn since(self, begun: Instant) -> Self {
        Self { begun, ..self }
    }

    /// As an exporter takes it.
    pub(super) fn ended(self, scope: InstrumentationScope) -> SpanData {
        let end_time = SystemTime::from(clock::wall());
        let mut links = SpanLinks::default();
        links.links = self.links;
        SpanData {
            span_context: self.context,
            parent_span_is_remote: self.parent != SpanId::INVALID,
            parent_span_id: self.parent,
            span_kind: self.kind,
            name: self.name,
            start_time: end_time.checked_sub(self.begun.elapsed()).unwrap_or(end_time),
            end_time,
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: self.status,
            instrumentation_scope: scope,
        }
    }
}

fn attributes(spec: &Spec, invocation: &Invocation, outcome: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("gavel.handler", spec.name),
        KeyValue::new("gavel.trigger", spec.trigger.kind()),
        KeyValue::new("gavel.outcome", outcome),
        KeyValue::new("gavel.correlation_id", invocation.correlation_id.clone()),
    ]
}

/// <https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/>
fn messaging(operation: &'static str) -> [KeyValue; 2] {
    [KeyValue::new("messaging.system", "rabbitmq"), KeyValue::new("messaging.operation.type", operation)]
}

/// A refusal is the caller's affair, and no error of who refuses.
fn status(outcome: &'static str) -> Status {
    match outcome {
        "internal" | "unavailable" | "deadline_exceeded" => Status::error(outcome),
        _ => Status::Unset,
    }
}

/// Reads `00-<trace id>-<span id>-<flags>`, which an invocation has checked.
pub(super) fn context(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}
