//! The listener of a process: its routes, health and metrics on one port, HTTP/1.1 and h2c.
use crate::{
    Runtime,
    config::ProcessConfig,
    health::{self, Needs},
};
use anyhow::Context;
use poem::{
    Endpoint, EndpointExt, Response, Route, Server,
    http::{StatusCode, uri::Scheme},
    listener::{Acceptor, Listener, TcpAcceptor, TcpListener},
    web::{LocalAddr, RemoteAddr},
};
use std::io;
use tokio_util::sync::CancellationToken;

/// HTTP/2 streams open at the same time, per connection.
const MAX_STREAMS: u32 = 1_024;

/// Binds first, so that an address in use is an error and not a log line.
pub(crate) async fn bind(config: &ProcessConfig) -> anyhow::Result<NoDelay> {
    let acceptor = TcpListener::bind(config.listen.to_string())
        .into_acceptor()
        .await
        .with_context(|| format!("can't listen on {} (GAVEL_LISTEN)", config.listen))?;
    Ok(NoDelay(acceptor))
}

/// Serves until `stop`, then finishes the requests under way, within the grace period.
pub(crate) async fn serve(
    acceptor: NoDelay,
    routes: Route,
    config: &ProcessConfig,
    stop: CancellationToken,
) -> io::Result<()> {
    // A peer that never finishes its request is cut off while there is still time to end in order.
    let patience = config.grace.saturating_sub(config.drain_delay).mul_f64(0.8);
    Server::new_with_acceptor(acceptor)
        .http2_max_concurrent_streams(MAX_STREAMS)
        .run_with_graceful_shutdown(routes, async move { stop.cancelled().await }, Some(patience))
        .await
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

/// Sets TCP_NODELAY, which poem leaves off: without it small answers wait some 40 ms for the client's delayed ACK.
pub(crate) struct NoDelay(TcpAcceptor);

impl NoDelay {
    /// Where it listens: the port the system chose, where port 0 was asked for.
    pub(crate) fn address(&self) -> String {
        self.0.local_addr().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl Acceptor for NoDelay {
    type Io = tokio::net::TcpStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.0.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
        let accepted = self.0.accept().await?;
        accepted.0.set_nodelay(true)?;
        Ok(accepted)
    }
}
