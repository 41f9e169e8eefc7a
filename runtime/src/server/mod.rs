//! The listener of a process: its routes, health and metrics on one port, HTTP/1.1 and h2c.
mod answers;
mod connection;
mod listener;

pub(crate) use listener::Listener;

use crate::{
    Runtime,
    config::ProcessConfig,
    edge::Edge,
    health::{self, Needs},
};
use answers::Answers;
use anyhow::Context as _;
use connection::Connections;
use poem::{
    Endpoint, EndpointExt, Response, Route,
    http::{Method, StatusCode},
    middleware::Cors,
};
use std::{io, sync::Arc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A browser remembers for so long what a page may do, in seconds.
const PREFLIGHT_S: i32 = 7_200;

/// Binds first, so that an address in use is an error and not a log line.
pub(crate) fn bind(config: &ProcessConfig) -> anyhow::Result<Listener> {
    Listener::bind(config.listen, config.connections as usize)
        .with_context(|| format!("can't listen on {} (GAVEL_LISTEN)", config.listen))
}

/// What a process answers.
#[derive(Default)]
pub(crate) struct Routes {
    /// The methods, if it has any: the way that most requests take.
    pub(crate) calls: Option<Edge>,
    /// Everything, the methods among it.
    pub(crate) all: Route,
}

/// Serves until `stop`, then finishes the requests under way, within the grace period.
pub(crate) async fn serve(
    listener: Listener,
    Routes { calls, all }: Routes,
    config: &ProcessConfig,
    stop: CancellationToken,
) -> io::Result<()> {
    let answers = match cors(&config.cors_origins) {
        Some(cors) => Answers { calls, all: all.with(cors).map_to_response().boxed(), minds_origins: true },
        None => Answers { calls, all: all.map_to_response().boxed(), minds_origins: false },
    };
    let connections = Arc::new(Connections::new(answers, listener.address()?, config.patience, stop.clone()));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let connections = connections.clone();
        tasks.spawn(async move { connections.serve(accepted).await });
    }
    // From here on the system refuses who connects.
    drop(listener);
    tasks.close();
    // A peer that never finishes its request is cut off while there is still time to end in order.
    let patience = config.grace.saturating_sub(config.drain_delay).mul_f64(0.8);
    if tokio::time::timeout(patience, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections are cut off: their requests did not end");
        connections.cut_off();
        tasks.wait().await;
    }
    Ok(())
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
