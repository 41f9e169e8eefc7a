//! A collector of traces, which keeps what it is sent: OTLP over HTTP, as processes speak it.
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value},
    trace::v1::span::SpanKind,
};
use poem::{EndpointExt, Route, Server, handler, http::StatusCode, listener::TcpAcceptor, post, web::Data};
use prost::Message;
use std::{
    fmt::Write,
    net::TcpListener,
    sync::{Arc, Mutex},
};

/// What was sent so far.
type Kept = Arc<Mutex<Vec<Span>>>;

/// A collector on a port of its own.
pub struct Collector {
    /// Where to send to, without the path.
    pub endpoint: String,
    kept: Kept,
}

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    /// Of the process that sent it: `service.name`.
    pub service: String,
    /// What was done.
    pub name: String,
    /// For whom.
    pub kind: SpanKind,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The same of the span that caused it, or nothing.
    pub parent: String,
    /// Span ids of others that it is about.
    pub links: Vec<String>,
    /// When it began and ended, in nanoseconds since 1970.
    pub times: (u64, u64),
    attributes: Vec<KeyValue>,
}

impl Span {
    /// An attribute that is a text.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        text(&self.attributes, name)
    }
}

impl Collector {
    /// Listens.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound port"));
        let kept = Kept::default();
        let routes = Route::new().at("/v1/traces", post(take)).data(kept.clone());
        let acceptor = TcpAcceptor::from_std(listener).expect("a listener");
        tokio::spawn(Server::new_with_acceptor(acceptor).run(routes));
        Self { endpoint, kept }
    }

    /// All that was sent so far.
    pub fn spans(&self) -> Vec<Span> {
        self.kept.lock().expect("nobody panicked").clone()
    }

    /// All of a trace, by when they began.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace_id == trace_id);
        spans.sort_by_key(|span| span.times);
        spans
    }
}

#[handler]
fn take(body: Vec<u8>, Data(kept): Data<&Kept>) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(Bytes::from(body)) else { return StatusCode::BAD_REQUEST };
    let mut kept = kept.lock().expect("nobody panicked");
    for resource in request.resource_spans {
        let known = resource.resource.unwrap_or_default();
        let service = text(&known.attributes, "service.name").unwrap_or_default().to_owned();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            kept.push(Span {
                service: service.clone(),
                kind: span.kind(),
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
                name: span.name,
                attributes: span.attributes,
            });
        }
    }
    StatusCode::OK
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let value = attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?;
    match value.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
