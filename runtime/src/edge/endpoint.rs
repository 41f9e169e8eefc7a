//! From HTTP's requests to the protocols' service and back.
use super::dispatch::Dispatch;
use bytes::Bytes;
use connectrpc::{ConnectRpcBody, ConnectRpcService};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::BoxBody};
use poem::{
    Body, Endpoint, Request, Response,
    http::{self, HeaderMap, HeaderValue, Method, header},
};
use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};
use sync_wrapper::SyncWrapper;
use tower_service::Service;

/// Every method, at its path. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge(ConnectRpcService<Dispatch>);

impl Edge {
    pub(super) fn new(service: ConnectRpcService<Dispatch>) -> Self {
        Self(service)
    }

    /// Whether there is a method at this path.
    pub(crate) fn knows(&self, path: &str) -> bool {
        self.0.dispatcher().knows(method_at(path))
    }

    /// Answers a call.
    pub(crate) async fn answer(
        &self,
        request: http::Request<BoxBody<Bytes, io::Error>>,
    ) -> http::Response<ConnectRpcBody> {
        // connectrpc reads a call first, which costs, and may never end where there is no such method.
        if let Some(mut response) = self.0.dispatcher().refusal(method_at(request.uri().path()), &request) {
            if request.version() != http::Version::HTTP_2 && request.method() == Method::POST {
                close(response.headers_mut());
            }
            return response;
        }
        let (request, unread) = Reading::of(request);
        let mut response = match self.0.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if unread.is_some_and(|unread| unread.load(Ordering::Relaxed)) {
            close(response.headers_mut());
        }
        response
    }
}

fn method_at(path: &str) -> &str {
    path.trim_start_matches('/')
}

impl Endpoint for Edge {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        Ok(into_poem(self.answer(request.into()).await))
    }
}

/// Answered before its request was read whole, a connection of HTTP/1.1 is of no more use: the client must not send the next
/// call over it.
fn close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// A request's body of HTTP/1.1, that says whether some of it is still to come.
struct Reading {
    body: BoxBody<Bytes, io::Error>,
    unread: Arc<AtomicBool>,
}

impl Reading {
    /// None where the connection does not depend on it.
    fn of(
        request: http::Request<BoxBody<Bytes, io::Error>>,
    ) -> (http::Request<BoxBody<Bytes, io::Error>>, Option<Arc<AtomicBool>>) {
        if request.version() == http::Version::HTTP_2 {
            return (request, None);
        }
        let unread = Arc::new(AtomicBool::new(!request.body().is_end_stream()));
        let request = request.map(|body| Self { body, unread: unread.clone() }.boxed());
        (request, Some(unread))
    }
}

impl http_body::Body for Reading {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.unread.store(false, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
