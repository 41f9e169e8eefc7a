//! From a connection's requests to answers.
use crate::edge::Edge;
use bytes::Bytes;
use connectrpc::ConnectRpcBody;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::body::Incoming;
use poem::{
    Addr, Endpoint, Response,
    endpoint::BoxEndpoint,
    http::{self, header::ORIGIN, uri::Scheme},
    web::{LocalAddr, RemoteAddr},
};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

/// What answers a process's requests.
pub(super) struct Answers {
    pub(super) calls: Option<Edge>,
    pub(super) all: BoxEndpoint<'static, Response>,
    /// Whether `all` looks at the origins of web pages: then it is asked for all that they request.
    pub(super) minds_origins: bool,
}

/// The two ends of a connection.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

impl Answers {
    /// Calls go to their method; whatever else there is, through the routes.
    pub(super) async fn answer(&self, request: http::Request<Incoming>, ends: Ends) -> http::Response<Answer> {
        if let Some(calls) = self.calls_of(&request) {
            let request = request.map(|body| body.map_err(io::Error::other).boxed());
            return calls.answer(request).await.map(Answer::Call);
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
