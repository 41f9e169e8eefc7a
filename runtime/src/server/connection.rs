//! One connection: HTTP/1.1 or HTTP/2, whichever its first bytes speak, for as long as its peer shows that it is there.
use super::{
    answers::{Answers, Ends},
    listener::Accepted,
};
use crate::config::Patience;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use poem::http;
use std::{
    convert::Infallible,
    future::pending,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

/// HTTP/2 streams open at the same time, per connection.
const MAX_STREAMS: u32 = 1_024;
/// A request's headers, in bytes.
const MAX_HEADERS: u32 = 16 * 1_024;
/// What a peer may send of one request before any of it is read: more than the largest request.
const STREAM_WINDOW_BYTES: u32 = 96 * 1_024;
/// The same for all requests of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1_024;
/// The length of HTTP/2's preface, in bytes, <https://www.rfc-editor.org/rfc/rfc9113#section-3.4>.
const PREFACE_BYTES: usize = 24;

/// What is the same for all connections.
pub(super) struct Connections {
    protocols: Builder<Streams>,
    answers: Arc<Answers>,
    local: SocketAddr,
    patience: Patience,
    stop: CancellationToken,
    cut_off: CancellationToken,
}

impl Connections {
    /// After `stop` each ends when its requests are answered.
    pub(super) fn new(answers: Answers, local: SocketAddr, patience: Patience, stop: CancellationToken) -> Self {
        let mut protocols = Builder::new(Streams);
        protocols
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(patience.headers)
            // What does not fit is refused.
            .max_buf_size(MAX_HEADERS as usize);
        protocols
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(patience.ping)
            .keep_alive_timeout(patience.ping)
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(MAX_HEADERS);
        Self { protocols, answers: Arc::new(answers), local, patience, stop, cut_off: CancellationToken::new() }
    }

    /// Ends all of them at once.
    pub(super) fn cut_off(&self) {
        self.cut_off.cancel();
    }

    /// Serves until the peer goes, stops answering or is idle.
    pub(super) async fn serve(&self, accepted: Accepted) {
        let Accepted { stream, peer, place: _place } = accepted;
        let ends = Ends { local: self.local, peer };
        let usage = Arc::new(Usage::default());
        let service = service_fn(|request: http::Request<Incoming>| {
            let (answers, underway) = (self.answers.clone(), Underway::on(&usage));
            // In a box from the beginning: it is large, and hyper hands it on several times.
            Box::pin(async move {
                let response = answers.answer(request, ends).await;
                Ok::<_, Infallible>(response.map(|body| Tracked { body, _underway: underway }))
            })
        });
        let stream = Counted { stream, usage: usage.clone() };
        let mut connection = pin!(self.protocols.serve_connection(TokioIo::new(stream), service));
        let reason = async {
            tokio::select! {
                () = usage.no_greeting(self.patience.greeting) => End::AtOnce,
                () = self.cut_off.cancelled() => End::AtOnce,
                () = usage.idle(self.patience.idle) => End::InOrder,
                () = self.stop.cancelled() => End::InOrder,
            }
        };
        // In a set of one, which looks at its timers when they ring, and not whenever a byte has come.
        let mut reasons = FuturesUnordered::from_iter([reason]);
        // What goes wrong with a connection is its peer's business.
        let end = tokio::select! {
            biased;
            _ = &mut connection => return,
            Some(end) = reasons.next() => end,
        };
        if matches!(end, End::InOrder) {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = connection => {}
                () = self.cut_off.cancelled() => {}
                // Nothing is under way and it does not end: the peer takes nothing, not even the farewell.
                () = usage.idle(self.patience.ping) => {}
            }
        }
    }
}

/// Where the streams of HTTP/2 are answered.
#[derive(Clone, Copy)]
struct Streams;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    #[expect(clippy::disallowed_methods, reason = "its connection waits for it, and ends it")]
    fn execute(&self, stream: F) {
        tokio::spawn(stream);
    }
}

/// The way a connection is ended.
enum End {
    AtOnce,
    /// When what is under way is answered.
    InOrder,
}

/// The way a connection is made use of.
#[derive(Default)]
struct Usage {
    bytes_read: AtomicUsize,
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Usage {
    /// Returns when it took too long to say anything.
    async fn no_greeting(&self, patience: Duration) {
        tokio::time::sleep(patience).await;
        let is_silent = self.begun.load(Relaxed) == 0 && self.bytes_read.load(Relaxed) < PREFACE_BYTES;
        if !is_silent {
            pending::<()>().await;
        }
    }

    /// Returns when nothing has been asked and nothing answered for long.
    async fn idle(&self, patience: Duration) {
        let changes = || self.begun.load(Relaxed) + self.ended.load(Relaxed);
        loop {
            let before = changes();
            tokio::time::sleep(patience).await;
            if changes() == before && self.begun.load(Relaxed) == self.ended.load(Relaxed) {
                return;
            }
        }
    }
}

/// A request from its headers to the end of its answer.
struct Underway(Arc<Usage>);

impl Underway {
    fn on(usage: &Arc<Usage>) -> Self {
        usage.begun.fetch_add(1, Relaxed);
        Self(usage.clone())
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Relaxed);
    }
}

/// An answer's body, and that it is still under way.
struct Tracked<B> {
    body: B,
    _underway: Underway,
}

impl<B: Body + Unpin> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's bytes, counted as they come.
struct Counted {
    stream: TcpStream,
    usage: Arc<Usage>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.usage.bytes_read.fetch_add(buffer.filled().len() - before, Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // An answer is mostly in one piece, which is cheaper to send without a list of pieces.
        if let [only] = slices {
            return self.poll_write(context, only);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
