//! What stands in front of the gRPC routes and mends what poem-grpc leaves out: a limit on the request's size,
//! `grpc-timeout`, typed error details, messages escaped as the protocol says, and malformed requests called so.
use crate::{Error, invocation::CORRELATION_HEADER, receipt::RpcStatus};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited, combinators::BoxBody};
use poem::{
    Body, Endpoint, Middleware, Request, Response,
    http::{HeaderMap, HeaderValue},
};
use prost::Message;
use std::{
    io,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// The largest request, in bytes. Every request of this API is far smaller.
const MAX_REQUEST_BYTES: usize = 64 * 1_024;

/// What a call leaves for the front to write out. Empty when the request never got as far as a handler.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot(Arc<OnceLock<Outcome>>);

#[derive(Debug)]
struct Outcome {
    correlation_id: String,
    status: Option<RpcStatus>,
}

impl Slot {
    pub(crate) fn fill(&self, correlation_id: &str, error: Option<&Error>) {
        let outcome = Outcome { correlation_id: correlation_id.to_owned(), status: error.map(RpcStatus::of) };
        // Filled once per call; a second time would be the same call's.
        let _ = self.0.set(outcome);
    }
}

/// When the client will have stopped waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientDeadline(pub(crate) Instant);

/// The middleware.
pub(crate) struct Front;

impl<E: Endpoint<Output = Response>> Middleware<E> for Front {
    type Output = FrontEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        FrontEndpoint { inner }
    }
}

pub(crate) struct FrontEndpoint<E> {
    inner: E,
}

impl<E: Endpoint<Output = Response>> Endpoint for FrontEndpoint<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let slot = Slot::default();
        request.extensions_mut().insert(slot.clone());
        if let Some(timeout) = request.headers().get("grpc-timeout").and_then(grpc_timeout) {
            request.extensions_mut().insert(ClientDeadline(Instant::now() + timeout));
        }
        let body: BoxBody<Bytes, io::Error> = request.take_body().into();
        request.set_body(Body::from(Limited::new(body, MAX_REQUEST_BYTES).map_err(io::Error::other).boxed()));
        let mut response = self.inner.call(request).await?;
        write_out(response.headers_mut(), slot.0.get());
        Ok(response)
    }
}

/// poem-grpc answers an error with headers alone, so that is where its details go.
fn write_out(headers: &mut HeaderMap, outcome: Option<&Outcome>) {
    let put = |headers: &mut HeaderMap, name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    let Some(outcome) = outcome else {
        // poem-grpc calls what it can't decode internal; the caller is at fault.
        if headers.get("grpc-status").is_some_and(|status| status == "13") {
            put(headers, "grpc-status", "3");
            let told = headers.get("grpc-message").and_then(|told| told.to_str().ok()).unwrap_or("").to_owned();
            put(headers, "grpc-message", &format!("the request can't be read: {told}"));
        }
        return;
    };
    put(headers, CORRELATION_HEADER, &outcome.correlation_id);
    if let Some(status) = &outcome.status {
        put(headers, "grpc-message", &percent_encoded(&status.message));
        if !status.details.is_empty() {
            put(headers, "grpc-status-details-bin", &STANDARD_NO_PAD.encode(status.encode_to_vec()));
        }
    }
}

/// gRPC over HTTP/2: printable ASCII stays, `%` and the rest are escaped.
fn percent_encoded(message: &str) -> String {
    use std::fmt::Write;
    message.bytes().fold(String::with_capacity(message.len()), |mut out, byte| {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// gRPC over HTTP/2: at most eight digits and a unit.
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3_600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        let read = |text| grpc_timeout(&HeaderValue::from_static(text));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("1H"), Some(Duration::from_hours(1)));
        for bad in ["", "S", "1", "123456789S", "-1S", "+1S", "1x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn messages_are_escaped() {
        assert_eq!(percent_encoded("50 % für"), "50 %25 f%C3%BCr");
    }
}
