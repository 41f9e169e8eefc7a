//! From poem's requests to the protocols' service and back.
use super::dispatch::{Dispatch, unknown};
use bytes::Bytes;
use connectrpc::{ConnectRpcBody, ConnectRpcService, Dispatcher};
use http_body::Frame;
use http_body_util::{BodyExt, combinators::BoxBody};
use poem::{
    Body, Endpoint, Request, Response,
    http::{self, Method, StatusCode, header::CONTENT_TYPE},
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
        // connectrpc would wait for the messages of an unknown method, which may never end.
        if self.0.dispatcher().lookup(path).is_none() {
            return Ok(no_such_method(&request));
        }
        let request: http::Request<BoxBody<Bytes, io::Error>> = request.into();
        let (parts, body) = match self.0.clone().call(request).await {
            Ok(response) => response.into_parts(),
            Err(never) => match never {},
        };
        let mut response = Response::builder().status(parts.status).body(into_poem(body));
        *response.headers_mut() = parts.headers;
        Ok(response)
    }
}

fn into_poem(body: ConnectRpcBody) -> Body {
    match body {
        // It knows its length, which HTTP/1.1 wants to tell.
        ConnectRpcBody::Full(full) => full.map_err(|never| match never {}).boxed().into(),
        streamed => SyncBody(SyncWrapper::new(streamed)).boxed().into(),
    }
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
fn no_such_method(request: &Request) -> Response {
    let content_type = request.content_type().unwrap_or_default();
    let error = unknown(request.uri().path().trim_start_matches('/'));
    if content_type.starts_with("application/grpc") {
        let message = error.message.clone().unwrap_or_default();
        return Response::builder()
            .header(CONTENT_TYPE, content_type)
            .header("grpc-status", error.code.grpc_code())
            .header("grpc-message", message)
            .finish();
    }
    if request.method() == Method::POST || request.uri().query().is_some_and(|query| query.contains("connect=v1")) {
        return Response::builder()
            .status(StatusCode::NOT_FOUND)
            .content_type("application/json")
            .body(error.to_json().to_vec());
    }
    Response::builder().status(StatusCode::NOT_FOUND).body("not found\n")
}
