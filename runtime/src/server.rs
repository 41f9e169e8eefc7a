//! The listener of a process: its routes, health and metrics on one port, HTTP/1.1 and h2c.
use crate::{
    Runtime,
    config::ProcessConfig,
    health::{self, Needs},
};
use anyhow::Context as _;
use poem::{
    Endpoint, EndpointExt, Response, Route, Server,
    http::{Method, StatusCode, uri::Scheme},
    listener::{Acceptor, TcpAcceptor},
    middleware::Cors,
    web::{LocalAddr, RemoteAddr},
};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

/// HTTP/2 streams open at the same time, per connection.
const MAX_STREAMS: u32 = 1_024;
/// A connection over which nothing came or went for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// Connections that wait to be accepted: when a process dies, all that watched over it come to another at once. The system's
/// own limit (`net.core.somaxconn`) may be lower.
const BACKLOG: u32 = 4_096;
/// Between tries to accept, when the system is short of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A browser remembers for so long what a page may do, in seconds.
const PREFLIGHT_S: i32 = 7_200;

/// Binds first, so that an address in use is an error and not a log line.
pub(crate) fn bind(config: &ProcessConfig) -> anyhow::Result<Listening> {
    let acceptor =
        listen(config.listen).with_context(|| format!("can't listen on {} (GAVEL_LISTEN)", config.listen))?;
    Ok(Listening { acceptor, places: Arc::new(Semaphore::new(config.connections as usize)) })
}

fn listen(address: SocketAddr) -> io::Result<TcpAcceptor> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of the process before may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    TcpAcceptor::from_tokio(socket.listen(BACKLOG)?)
}

/// Serves until `stop`, then finishes the requests under way, within the grace period.
pub(crate) async fn serve(
    acceptor: Listening,
    routes: Route,
    config: &ProcessConfig,
    stop: CancellationToken,
) -> io::Result<()> {
    // A peer that never finishes its request is cut off while there is still time to end in order.
    let patience = config.grace.saturating_sub(config.drain_delay).mul_f64(0.8);
    let routes = match cors(&config.cors_origins) {
        Some(cors) => routes.with(cors).map_to_response().boxed(),
        None => routes.map_to_response().boxed(),
    };
    Server::new_with_acceptor(acceptor)
        .http2_max_concurrent_streams(MAX_STREAMS)
        .idle_timeout(IDLE_TIMEOUT)
        .run_with_graceful_shutdown(routes, async move { stop.cancelled().await }, Some(patience))
        .await
}

/// Lets web pages of these origins call, and read what the protocols say in headers. None where there are none: poem would
/// let any.
fn cors(origins: &[String]) -> Option<Cors> {
    const REQUEST: [&str; 10] = [
        "authorization",
        "content-type",
        "connect-protocol-version",
        "connect-timeout-ms",
        "grpc-timeout",
        "x-grpc-web",
        "x-user-agent",
        "x-correlation-id",
        "traceparent",
        "content-encoding",
    ];
    const RESPONSE: [&str; 5] =
        ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-correlation-id", "content-encoding"];
    if origins.is_empty() {
        return None;
    }
    let cors = Cors::new().allow_origins(origins).allow_methods([Method::GET, Method::POST]);
    Some(cors.allow_headers(REQUEST).expose_headers(RESPONSE).max_age(PREFLIGHT_S))
}

/// `/healthz`, `/readyz` and `/metrics`.
pub(crate) fn operational_routes(runtime: &Runtime, needs: Needs, route: Route) -> Route {
    let (ready, metrics) = (runtime.clone(), runtime.clone());
    route
        .at("/healthz", poem::get(poem::endpoint::make_sync(|_| "ok\n")))
        .at("/readyz", poem::get(make(move || readyz(ready.clone(), needs))))
        .at("/metrics", poem::get(poem::endpoint::make_sync(move |_| render(&metrics))))
}

fn make<F: Future<Output = Response> + Send>(
    answer: impl Fn() -> F + Send + Sync + 'static,
) -> impl Endpoint<Output = Response> {
    poem::endpoint::make(move |_| answer()).map_to_response()
}

async fn readyz(runtime: Runtime, needs: Needs) -> Response {
    let readiness = health::readiness(&runtime, needs).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::to_string_pretty(&readiness).unwrap_or_default();
    Response::builder().status(status).content_type("application/json").body(body + "\n")
}

fn render(runtime: &Runtime) -> Response {
    match runtime.metrics().render() {
        Ok(text) => Response::builder().content_type("text/plain; version=0.0.4").body(text),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be rendered");
            Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).finish()
        }
    }
}

/// Accepts so many connections at the same time, and sets TCP_NODELAY, which poem leaves off: without it small answers wait
/// some 40 ms for the client's delayed ACK.
pub(crate) struct Listening {
    acceptor: TcpAcceptor,
    places: Arc<Semaphore>,
}

impl Listening {
    /// Where it listens: the port the system chose, where port 0 was asked for.
    pub(crate) fn address(&self) -> String {
        self.acceptor.local_addr().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// A connection. Out of file descriptors or memory the next try waits: at once, it would fail as well.
    async fn next(&mut self) -> (TcpStream, LocalAddr, RemoteAddr, Scheme) {
        loop {
            let error = match self.acceptor.accept().await {
                Ok(accepted) => match accepted.0.set_nodelay(true) {
                    Ok(()) => return accepted,
                    // It has gone already.
                    Err(_) => continue,
                },
                Err(error) => error,
            };
            let is_the_peers = matches!(
                error.kind(),
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
            );
            if !is_the_peers {
                tracing::warn!(%error, "no connection can be accepted for the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Acceptor for Listening {
    type Io = Placed;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.acceptor.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
        let place = self.places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, local, remote, scheme) = self.next().await;
        Ok((Placed { stream, _place: place }, local, remote, scheme))
    }
}

/// A connection that gives its place back when it ends.
pub(crate) struct Placed {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Placed {
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
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
