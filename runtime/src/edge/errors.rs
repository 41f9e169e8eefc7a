//! Errors as clients see them, in each protocol's own shape.
use crate::{Class, Error, base::invocation::CORRELATION_HEADER};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use connectrpc::{ConnectError, ErrorCode, ErrorDetail};
use poem::http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use std::time::Duration;

/// The longest text of an error, in bytes: it quotes what it was given, and travels in a header.
const MAX_MESSAGE_BYTES: usize = 1_000;

/// `google.rpc.RetryInfo`, <https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto>.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// `google.rpc.RequestInfo`, of the same file.
#[derive(Clone, PartialEq, Message)]
struct RequestInfo {
    #[prost(string, tag = "1")]
    request_id: String,
}

/// `google.rpc.ErrorInfo`, of the same file.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

/// Whose reasons they are.
const DOMAIN: &str = "gavel.runtime";

/// Returns what the caller may see of an error: its own detail; of an internal one where to find it in the log; of a
/// limit when to try again.
pub(super) fn shown(error: &Error, correlation_id: &str) -> ConnectError {
    let mut message = match error.class() {
        Class::Internal if error.is_masked() => format!("internal error; correlation id {correlation_id}"),
        _ => error.message().to_owned(),
    };
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    let code = ErrorCode::from_grpc_code(error.class().grpc_code().into()).unwrap_or(ErrorCode::Unknown);
    let (mut sent, mut trailers) = (headers(correlation_id), HeaderMap::new());
    if let Some(metadata) = error.metadata() {
        sent.extend(metadata.headers.clone());
        trailers = metadata.trailers.clone();
    }
    let mut shown = ConnectError::new(code, message).with_headers(sent).with_trailers(trailers);
    for detail in error.details() {
        shown = shown.with_detail(detail_of(&detail.type_url, &detail.value));
    }
    if error.is_masked() {
        let info = RequestInfo { request_id: correlation_id.to_owned() };
        shown = shown.with_detail(detail_of("google.rpc.RequestInfo", &info.encode_to_vec()));
    }
    if let Some(reason) = error.reason() {
        let info = ErrorInfo { reason: reason.to_owned(), domain: DOMAIN.to_owned() };
        shown = shown.with_detail(detail_of("google.rpc.ErrorInfo", &info.encode_to_vec()));
    }
    if let Some(delay) = error.retry_after() {
        let info = RetryInfo { retry_delay: Some(duration(delay)) };
        shown = shown.with_detail(detail_of("google.rpc.RetryInfo", &info.encode_to_vec()));
    }
    shown
}

/// The call can be found by this in the log.
pub(super) fn headers(correlation_id: &str) -> HeaderMap {
    let value = correlation_header(correlation_id);
    value.into_iter().map(|value| (HeaderName::from_static(CORRELATION_HEADER), value)).collect()
}

/// None for what is no header's value.
pub(crate) fn correlation_header(correlation_id: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(correlation_id).ok().filter(|value| !value.is_empty())?;
    // No secret, but of no use to HPACK's tables: no two answers have the same, and remembering each would cost more
    // than sending it (RFC 7541, 7.1.3).
    value.set_sensitive(true);
    Some(value)
}

/// connectrpc names the bare type, and adds what each protocol wants before it.
fn detail_of(type_url: &str, value: &[u8]) -> ErrorDetail {
    let name = type_url.rsplit('/').next().unwrap_or(type_url).to_owned();
    ErrorDetail { type_url: name, value: Some(STANDARD_NO_PAD.encode(value)), debug: None }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs().cast_signed(), nanos: duration.subsec_nanos().cast_signed() }
}
