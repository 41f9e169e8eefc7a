//! From a connection's requests to answers.
use crate::{
    base::{
        Seldom,
        client::TrustedProxies,
        invocation::{CORRELATION_HEADER, correlation_id_or_new},
        metadata::Metadata,
    },
    edge::{Edge, Source, correlation_header},
};
use bytes::Bytes;
use connectrpc::ConnectRpcBody;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use poem::{
    Addr, Endpoint, Response,
    endpoint::BoxEndpoint,
    http::{
        self, HeaderMap, HeaderValue, StatusCode, Uri,
        header::{ALLOW, HOST, ORIGIN, RETRY_AFTER},
        uri::{Authority, Scheme},
    },
    web::{LocalAddr, RemoteAddr},
};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Of a path that leads nowhere, in a line of the log.
const SHOWN_PATH_BYTES: usize = 100;

/// Answers that no handler gave: said once a second, since anybody may ask for anything.
static UNHANDLED: Seldom = Seldom::new();

/// What answers a process's requests.
pub(super) struct Answers {
    pub(super) calls: Option<Edge>,
    pub(super) all: BoxEndpoint<'static, Response>,
    /// True if `all` looks at the origins of web pages: then it is asked for all that they request.
    pub(super) minds_origins: bool,
    /// Whose word is taken for whom a request comes from; none where nobody is a stranger.
    pub(super) proxies: Option<Arc<TrustedProxies>>,
}

/// The two ends of a connection.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

impl Answers {
    /// Answers a request. Whatever becomes of it, the answer carries its correlation id.
    pub(super) async fn answer(&self, mut request: http::Request<Incoming>, ends: Ends) -> http::Response<Answer> {
        if self.minds_origins && comes_from_here(&request) {
            request.headers_mut().remove(ORIGIN);
        }
        if let Some(proxies) = &self.proxies {
            let client = proxies.client(ends.peer.ip(), request.headers());
            request.extensions_mut().insert(client);
        }
        let asked = Asked::of(&request);
        let mut response = self.route(request, ends).await;
        if matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            say_when_again(response.status(), response.headers_mut());
        }
        // Calls say themselves what is allowed; all other routes are read.
        if response.status() == StatusCode::METHOD_NOT_ALLOWED && !response.headers().contains_key(ALLOW) {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if !response.headers().contains_key(CORRELATION_HEADER) {
            asked.told(&mut response);
        }
        response
    }

    /// Calls go to their method; whatever else there is, through the routes.
    async fn route(&self, request: http::Request<Incoming>, ends: Ends) -> http::Response<Answer> {
        if let Some(calls) = self.calls_of(&request) {
            return calls.answer(request.map(Source::Direct)).await.map(Answer::Call);
        }
        let [local, peer] = [ends.local, ends.peer].map(Addr::SocketAddr);
        let request = (request, LocalAddr(local), RemoteAddr(peer), Scheme::HTTP).into();
        let response: http::Response<_> = self.all.get_response(request).await.into();
        response.map(Answer::Other)
    }

    fn calls_of(&self, request: &http::Request<Incoming>) -> Option<&Edge> {
        let straight = !self.minds_origins || !request.headers().contains_key(ORIGIN);
        self.calls.as_ref().filter(|calls| straight && calls.knows(request.uri().path()))
    }
}

/// When the same may be asked again, if ever.
fn say_when_again(status: StatusCode, headers: &mut HeaderMap) {
    if status == StatusCode::TOO_MANY_REQUESTS && !headers.contains_key(CORRELATION_HEADER) {
        // What is too large for any method is refused before one is asked.
        headers.extend(Metadata::never_again().headers);
    } else if !Metadata::is_never_again(headers) && !headers.contains_key(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

/// Returns whether a web page asks that this very address served. Browsers name the origin of such pages as well.
fn comes_from_here<B>(request: &http::Request<B>) -> bool {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let here = request.uri().authority().map(Authority::as_str).or_else(|| text(HOST));
    let from = text(ORIGIN).and_then(|origin| origin.split_once("://"));
    from.is_some_and(|(_, authority)| Some(authority) == here)
}

/// What an answer says and a log line needs that no handler has seen to.
struct Asked {
    correlation_id: Option<HeaderValue>,
    uri: Uri,
}

impl Asked {
    fn of<B>(request: &http::Request<B>) -> Self {
        let correlation_id = request.headers().get(CORRELATION_HEADER).cloned();
        Self { correlation_id, uri: request.uri().clone() }
    }

    /// Gives the answer its id. No handler has answered such a call, and it is said here.
    fn told(&self, response: &mut http::Response<Answer>) {
        let given = self.correlation_id.as_ref().and_then(|id| id.to_str().ok());
        let correlation_id = correlation_id_or_new(given);
        let (path, status) = (self.uri.path(), response.status().as_u16());
        let is_call = matches!(response.body(), Answer::Call(_)) || response.headers().contains_key("grpc-status");
        if is_call || (400..500).contains(&status) {
            let grpc_status = response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
            tracing::debug!(correlation_id, path, status, grpc_status, "answered without a handler's reply");
            if let Some(answers) = UNHANDLED.count() {
                let path = &path[..path.floor_char_boundary(SHOWN_PATH_BYTES)];
                tracing::info!(correlation_id, path, status, grpc_status, answers, "answers without a handler's reply");
            }
        }
        if let Some(id) = correlation_header(&correlation_id) {
            response.headers_mut().insert(CORRELATION_HEADER, id);
        }
    }
}

/// An answer's body.
pub(super) enum Answer {
    Call(ConnectRpcBody),
    Other(BoxBody<Bytes, io::Error>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Call(body) => Pin::new(body).poll_frame(context).map_err(|never: Infallible| match never {}),
            Self::Other(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            // connectrpc hands no more on than the frames.
            Self::Call(ConnectRpcBody::Full(body)) => body.is_end_stream(),
            Self::Call(body) => body.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Call(ConnectRpcBody::Full(body)) => body.size_hint(),
            Self::Call(body) => body.size_hint(),
            Self::Other(body) => body.size_hint(),
        }
    }
}
