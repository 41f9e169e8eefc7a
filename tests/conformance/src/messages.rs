//! The suite's messages, and what the service says of a call in them.
use gavel_runtime::call::Call;
use pb::{
    Header,
    conformance_payload::{ConnectGetInfo, RequestInfo},
};
use prost::Name;
use prost_types::Any;

#[expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/connectrpc.conformance.v1.rs"));
}

#[expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod testing {
    include!(concat!(env!("OUT_DIR"), "/grpc.testing.rs"));
}

/// All contracts.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/conformance.fds"));

/// A message whose type is known by name.
pub fn any<M: Name>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}

/// What a handler sees of the call that it answers.
pub fn seen<M: Name>(call: &Call, request: &M) -> RequestInfo {
    let headers = call.headers();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let request_headers = headers.keys().map(|name| Header {
        name: name.to_string(),
        value: headers.get_all(name).iter().map(|value| text(value.as_bytes())).collect(),
    });
    let query = form_urlencoded::parse(call.query().unwrap_or_default().as_bytes());
    let query_params = query.map(|(name, value)| Header { name: name.into_owned(), value: vec![value.into_owned()] });
    RequestInfo {
        request_headers: request_headers.collect(),
        timeout_ms: call.client_timeout().and_then(|timeout| i64::try_from(timeout.as_millis()).ok()),
        requests: vec![any(request)],
        connect_get_info: call.is_get().then(|| ConnectGetInfo { query_params: query_params.collect() }),
    }
}
