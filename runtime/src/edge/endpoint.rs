//! From poem's requests to the protocols' service and back.
use super::dispatch::Dispatch;
use bytes::Bytes;
use connectrpc::{ConnectError, ConnectRpcBody, ConnectRpcService};
use http_body::Frame;
use http_body_util::{BodyExt, combinators::BoxBody};
use poem::{
    Body, Endpoint, Request, Response,
    http::{self, Method, StatusCode},
};
use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use sync_wrapper::SyncWrapper;
use tower_service::Service;

/// Every method, at its path.
pub(super) struct Edge(ConnectRpcService<Dispatch>);

impl Edge {
    pub(super) fn new(service: ConnectRpcService<Dispatch>) -> Self {
        Self(service)
    }
}

impl Endpoint for Edge {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let path = request.uri().path().trim_start_matches('/');
        // connectrpc reads a call first, which costs, and may never end where there is no such method.
        if let Some(refusal) = self.0.dispatcher().refusal(path, request.headers()) {
            return Ok(refused(&request, refusal));
        }
        let request: http::Request<BoxBody<Bytes, io::Error>> = request.into();
        match self.0.clone().call(request).await {
            Ok(response) => Ok(into_poem(response)),
            Err(never) => match never {},
        }
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

/// In the protocol that it was asked in; to anything else, not found.
fn refused(request: &Request, refusal: ConnectError) -> Response {
    let is_call =
        request.method() == Method::POST || request.uri().query().is_some_and(|query| query.contains("connect=v1"));
    if is_call {
        into_poem(refusal.into_http_response(request.headers()))
    } else {
        Response::builder().status(StatusCode::NOT_FOUND).body("not found\n")
    }
}
