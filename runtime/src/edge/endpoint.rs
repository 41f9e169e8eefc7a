//! From HTTP's requests to the protocols' service and back.
use super::{
    budget::BodyLimits,
    dispatch::Dispatch,
    errors::shown,
    reading::{self, Source},
};
use bytes::Bytes;
use connectrpc::{ConnectRpcBody, ConnectRpcService};
use http_body::Frame;
use http_body_util::{BodyExt, combinators::BoxBody};
use poem::{Body, Endpoint, Request, Response, http};
use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use sync_wrapper::SyncWrapper;
use tower_service::Service;

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

    /// Whether there is a method at this path.
    pub(crate) fn knows(&self, path: &str) -> bool {
        self.service.dispatcher().knows(method_at(path))
    }

    /// Answers a call.
    pub(crate) async fn answer(&self, request: http::Request<Source>) -> http::Response<ConnectRpcBody> {
        let (request, unread) = reading::watched(request, &self.limits);
        let (dispatch, path) = (self.service.dispatcher(), method_at(request.uri().path()));
        // It may be no call at all, and never end.
        if let Some(answer) = dispatch.no_call(path, &request) {
            drop(request);
            return unread.soon(answer).await;
        }
        // connectrpc would read it first, which costs.
        if let Some(refusal) = dispatch.refusal(path, &request) {
            drop(request);
            return unread.in_turn(refusal).await;
        }
        let answer = self.service.clone().call(request).await.unwrap_or_else(|never| match never {});
        match unread.cut() {
            None => unread.in_turn(answer).await,
            // connectrpc takes it for a fault of ours.
            Some((error, form)) => unread.in_turn(shown(&error, "").into_http_response(&form)).await,
        }
    }
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

fn into_poem(response: http::Response<ConnectRpcBody>) -> Response {
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
