//! Refusals that are ready to be sent. Under overload they are most of what a service answers, and what it spends on
//! them is lost to the calls it has accepted.
use super::errors::{correlation_header, shown};
use crate::{
    Error,
    base::{invocation::CORRELATION_HEADER, memo::Memo},
};
use bytes::Bytes;
use connectrpc::{CodecFormat, ConnectRpcBody, Protocol};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Collected};
use poem::http::{HeaderMap, Response, StatusCode};

/// The refusal of calls of one method for which there is no place: always the same words, in each form that was asked
/// for.
#[derive(Default)]
pub(super) struct Refusals(Memo<Form, Ready>);

/// What the form of an error depends on. None where the protocol was not recognised.
#[derive(PartialEq, Eq, Hash)]
struct Form(Option<(Protocol, bool, bool)>);

impl Form {
    fn asked_in(headers: &HeaderMap) -> Self {
        let named = Protocol::detect(headers);
        Self(named.map(|form| (form.protocol, form.codec_format == CodecFormat::Json, form.is_streaming)))
    }
}

/// An answer but for its correlation id.
struct Ready {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Refusals {
    /// The answer to a call with these headers.
    pub(super) fn answer(&self, error: &Error, asked: &HeaderMap, correlation_id: &str) -> Response<ConnectRpcBody> {
        let ready = self.0.get(Form::asked_in(asked), || Ready::of(error, asked));
        let mut response = Response::new(ConnectRpcBody::Full(ready.body.clone().into()));
        *response.status_mut() = ready.status;
        *response.headers_mut() = ready.headers.clone();
        if let Some(id) = correlation_header(correlation_id) {
            response.headers_mut().insert(CORRELATION_HEADER, id);
        }
        response
    }
}

impl Ready {
    fn of(error: &Error, asked: &HeaderMap) -> Self {
        let (parts, body) = shown(error, "").into_http_response(asked).into_parts();
        let mut headers = parts.headers;
        // Its frames are there already: there is nothing to wait for.
        let body = match body.collect().now_or_never() {
            Some(Ok(body)) => body,
            Some(Err(never)) => match never {},
            None => Collected::default(),
        };
        // gRPC's: without a message, the trailers may come in the place of the headers ("Trailers-Only").
        headers.extend(body.trailers().cloned().unwrap_or_default());
        Self { status: parts.status, headers, body: body.to_bytes() }
    }
}
