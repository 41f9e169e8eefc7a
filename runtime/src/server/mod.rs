//! The listeners of a process, each HTTP/1.1 and h2c on one port: the public's, with calls and routes, and the
//! operators', with all of that and what is nobody else's: operators' calls, metrics, the autoscaler's questions,
//! reflection.
mod answers;
mod connection;
mod listener;

use crate::{
    Runtime,
    base::{client::TrustedProxies, held::Held},
    config::{ConnectionLimits, ProcessConfig},
    edge::Edge,
};
use answers::Answers;
use anyhow::Context as _;
use connection::Connections;
use listener::Listener;
use poem::{
    EndpointExt, Response, Route,
    http::{Method, StatusCode},
    middleware::Cors,
};
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A browser remembers for so long what a page may do, in seconds.
const PREFLIGHT_S: i32 = 7_200;

/// Of what a drain has left once the public's listener is closed: until then the public's requests under way may take,
/// and operators'.
const PUBLIC: f64 = 0.75;
const OPERATORS: f64 = 0.9;

/// Operators' connections at the same time: none of them is taken by the public.
const OPERATORS_CONNECTIONS: u32 = 256;

/// The bound ports of a process.
pub(crate) struct Listeners {
    public: Option<Bound>,
    operators: Bound,
}

/// A bound port, and what comes over it.
struct Bound {
    listener: Listener,
    /// Where nobody is a stranger there are none.
    proxies: Option<Arc<TrustedProxies>>,
}

/// Binds first, so that an address in use is an error and not a log line.
pub(crate) fn bind(config: &ProcessConfig) -> anyhow::Result<Listeners> {
    let proxies = Arc::new(TrustedProxies::new(config.connections.trusted_proxies.clone()));
    let operators = ConnectionLimits { total: OPERATORS_CONNECTIONS, per_address: 0, ..config.connections.clone() };
    let bound = |address, limits, variable: &str| {
        let listener = Listener::bind(address, limits, proxies.clone());
        listener.with_context(|| format!("can't listen on {address} ({variable})"))
    };
    let public = config.listen.map(|address| {
        let listener = bound(address, &config.connections, "GAVEL_LISTEN")?;
        anyhow::Ok(Bound { listener, proxies: Some(proxies.clone()) })
    });
    let operators = bound(config.ops_listen, &operators, "GAVEL_OPS_LISTEN")?;
    Ok(Listeners { public: public.transpose()?, operators: Bound { listener: operators, proxies: None } })
}

impl Listeners {
    /// Where the public is served, if it is, and where operators are.
    pub(crate) fn addresses(&self) -> io::Result<(Option<SocketAddr>, SocketAddr)> {
        let public = self.public.as_ref().map(|bound| bound.listener.address());
        Ok((public.transpose()?, self.operators.listener.address()?))
    }

    /// Serves until `stop`, then finishes the requests under way, within the grace period. Operators, and whoever asks
    /// how the process is, are answered until the public's calls have ended.
    pub(crate) async fn serve(
        self,
        public: Routes,
        operators: Routes,
        config: &ProcessConfig,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let rest = config.grace.saturating_sub(config.drain_delay);
        let (over, stopped_at) = (CancellationToken::new(), OnceLock::new());
        let left = |part: f64| {
            let passed = stopped_at.get().map_or(Duration::ZERO, Instant::elapsed);
            rest.mul_f64(part).saturating_sub(passed)
        };
        let serve_public = async {
            match self.public {
                Some(bound) => serve(bound, public, config, (stop.clone(), || left(PUBLIC))).await,
                None => Ok(()),
            }
        };
        let drained = async {
            let note = async {
                stop.cancelled().await;
                stopped_at.set(Instant::now()).ok();
            };
            let (served, ()) = tokio::join!(serve_public, note);
            over.cancel();
            served
        };
        let serve_operators = serve(self.operators, operators, config, (over.clone(), || left(OPERATORS)));
        tokio::try_join!(drained, serve_operators).map(drop)
    }
}

/// What a process answers.
#[derive(Default)]
pub(crate) struct Routes {
    /// The methods, if it has any: the way that most requests take.
    pub(crate) calls: Option<Edge>,
    /// Everything, the methods among it.
    pub(crate) all: Route,
    /// Counts the connections that are open.
    pub(crate) open: Held,
}

async fn serve(
    Bound { listener, proxies }: Bound,
    Routes { calls, all, open }: Routes,
    config: &ProcessConfig,
    (stop, left): (CancellationToken, impl Fn() -> Duration),
) -> io::Result<()> {
    let answers = match cors(&config.cors_origins) {
        Some(cors) => Answers { calls, all: all.with(cors).map_to_response().boxed(), minds_origins: true, proxies },
        None => Answers { calls, all: all.map_to_response().boxed(), minds_origins: false, proxies },
    };
    let connections = Arc::new(Connections::new(answers, listener.address()?, config.patience, stop.clone()));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (connections, one) = (connections.clone(), open.take());
        tasks.spawn(async move {
            connections.serve(accepted).await;
            drop(one);
        });
    }
    // From here on the system refuses who connects.
    drop(listener);
    tasks.close();
    // A peer that never finishes its request is cut off while there is still time to end in order.
    if tokio::time::timeout(left(), tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "connections are cut off: their requests did not end");
        connections.cut_off();
        tasks.wait().await;
    }
    Ok(())
}

/// Lets web pages of these origins call, and read what the protocols say in headers. None where there are none: poem
/// would let any.
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

/// `/healthz` and `/readyz`, for whoever sends work here.
pub(crate) fn health_routes(runtime: &Runtime, route: Route) -> Route {
    let runtime = runtime.clone();
    route
        .at("/healthz", poem::get(poem::endpoint::make_sync(|_| "ok\n")))
        .at("/readyz", poem::get(poem::endpoint::make_sync(move |_| readyz(&runtime))))
}

/// `/metrics`.
pub(crate) fn metrics_route(runtime: &Runtime, route: Route) -> Route {
    let runtime = runtime.clone();
    route.at("/metrics", poem::get(poem::endpoint::make_sync(move |_| render(&runtime))))
}

fn readyz(runtime: &Runtime) -> Response {
    let Some(readiness) = runtime.health().readiness() else {
        return Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body("not looked yet\n");
    };
    let readiness = readiness.unless_draining(runtime.tasks());
    let status = match (readiness.ready, readiness.draining) {
        (true, _) => StatusCode::OK,
        // To HAProxy (`disable-on-404`) it says: send nothing new, and let what is under way come to its end. After a 503
        // it gives the server up, and cuts that off. To everybody else one is as good as the other.
        (false, true) => StatusCode::NOT_FOUND,
        (false, false) => StatusCode::SERVICE_UNAVAILABLE,
    };
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
