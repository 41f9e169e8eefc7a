//! From HTTP's requests to the protocols' service and back.
use super::{
    body::{self, Source},
    budget::BodyLimits,
    dispatch::{Dispatch, Registered, nowhere},
    errors::shown,
};
use crate::base::call::Line;
use bytes::Bytes;
use connectrpc::{ConnectRpcBody, ConnectRpcService};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, combinators::BoxBody};
use poem::{
    Body, Endpoint, Request, Response,
    http::{self, HeaderValue, header::CONTENT_TYPE},
};
use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use sync_wrapper::SyncWrapper;
use tower_service::Service;

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";

/// Every method, at its path. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge {
    service: ConnectRpcService<Dispatch>,
    limits: BodyLimits,
}

impl Edge {
    pub(super) fn new(service: ConnectRpcService<Dispatch>, limits: BodyLimits) -> Self {
        Self { service, limits }
    }

    /// Returns whether there is a method at this path.
    pub(crate) fn knows(&self, path: &str) -> bool {
        self.service.dispatcher().method(method_at(path)).is_some()
    }

    /// Answers a call.
    pub(crate) async fn answer(&self, mut request: http::Request<Source>) -> http::Response<ConnectRpcBody> {
        let dispatch = self.service.dispatcher();
        let method = dispatch.method(method_at(request.uri().path()));
        let sees_call = method.is_some_and(Registered::sees_call);
        if sees_call {
            let line = Line {
                is_get: request.method() == http::Method::GET,
                query: request.uri().query().map(ToOwned::to_owned),
            };
            request.extensions_mut().insert(line);
        }
        let (request, unread) = body::watched(request, &self.limits);
        let Some(method) = method else {
            let answer = nowhere(method_at(request.uri().path()), &request);
            drop(request);
            return unread.soon(answer).await;
        };
        // It may be no call at all, and never end.
        if let Some(answer) = method.no_call(&request) {
            drop(request);
            return unread.soon(answer).await;
        }
        // connectrpc would read it first, which costs.
        if let Some(refusal) = dispatch.refusal(method, &request) {
            drop(request);
            return unread.in_turn(refusal).await;
        }
        let mut answer = self.service.clone().call(request).await.unwrap_or_else(|never| match never {});
        answer = said_once(answer, sees_call).await;
        match unread.cut() {
            None => unread.in_turn(answer).await,
            // connectrpc takes it for a fault of ours.
            Some((error, form)) => unread.in_turn(shown(&error, "").into_http_response(&form)).await,
        }
    }
}

/// connectrpc says the status of a failed call twice, before the answer and after it, which some clients take for two
/// answers. Once it is either all before it, as gRPC's Trailers-Only has it; or, where a handler has said headers and
/// trailers, all after it.
pub(super) async fn said_once(
    mut answer: http::Response<ConnectRpcBody>,
    has_own_trailers: bool,
) -> http::Response<ConnectRpcBody> {
    if !answer.headers().contains_key(GRPC_STATUS) {
        return answer;
    }
    let kind = answer.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    // In gRPC-Web what comes after is no trailers, but the last of the body.
    if !kind.starts_with(b"application/grpc")
        || kind.starts_with(b"application/grpc-web")
        || answer.body().is_end_stream()
    {
        return answer;
    }
    if has_own_trailers {
        answer.headers_mut().remove(GRPC_STATUS);
        answer.headers_mut().remove(GRPC_MESSAGE);
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    // The call has failed: nothing but its end is still to come.
    if let Ok(Some(trailers)) = body.collect().await.map(|rest| rest.trailers().cloned()) {
        parts.headers.extend(trailers);
    }
    http::Response::from_parts(parts, ConnectRpcBody::Full(Bytes::new().into()))
}

fn method_at(path: &str) -> &str {
    path.trim_start_matches('/')
}

impl Endpoint for Edge {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let request: http::Request<BoxBody<Bytes, io::Error>> = request.into();
        Ok(into_poem(self.answer(request.map(Source::Routed)).await))
    }
}

pub(super) fn into_poem(response: http::Response<ConnectRpcBody>) -> Response {
    let (parts, body) = response.into_parts();
    let body: Body = match body {
        // It knows its length, which HTTP/1.1 wants to tell.
        ConnectRpcBody::Full(full) => full.map_err(|never| match never {}).boxed().into(),
        streamed => SyncBody(SyncWrapper::new(streamed)).boxed().into(),
    };
    let mut response = Response::builder().status(parts.status).body(body);
    *response.headers_mut() = parts.headers;
    response
}

/// poem wants bodies that can be shared between threads; one is only ever read by its connection.
struct SyncBody(SyncWrapper<ConnectRpcBody>);

impl http_body::Body for SyncBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = Pin::new(self.0.get_mut()).poll_frame(context);
        frame.map_err(|never: Infallible| match never {})
    }
}
