//! How a process listens and leaves.
use super::{Env, TraceConfig};
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Where the public reaches a service that is not told otherwise.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
/// Where operators reach a process that is not told otherwise: from its own machine.
const DEFAULT_OPS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// The way a process listens and leaves.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Where the public's calls are served; a worker serves none.
    pub listen: Option<SocketAddr>,
    /// Where operators, metrics and the autoscaler are served: no gateway leads here.
    pub ops_listen: SocketAddr,
    /// Time for which a drain may take before the process gives up.
    pub grace: Duration,
    /// Time for which readiness is off before the listeners close, so that a balancer notices.
    pub drain_delay: Duration,
    /// What connections may take.
    pub connections: ConnectionLimits,
    /// Time for which a connection may be of no use.
    pub patience: Patience,
    /// Web pages of these origins may call.
    pub cors_origins: Vec<String>,
    /// Where the spans of runs go.
    pub traces: TraceConfig,
    /// Variables that nobody reads, which is said at the start.
    pub unlisted: Vec<String>,
}

impl ProcessConfig {
    /// Of a process that serves the public: `GAVEL_LISTEN` and all that [`ProcessConfig::of_worker`] reads.
    pub fn of_service(env: &mut Env) -> Self {
        let listen = address(env, "GAVEL_LISTEN", DEFAULT_LISTEN);
        let config = Self { listen: Some(listen), ..Self::of_worker(env) };
        if config.ops_listen == listen && listen.port() != 0 {
            env.problem(format!("GAVEL_LISTEN and GAVEL_OPS_LISTEN are both {listen}; allowed: two addresses"));
        }
        config
    }

    /// Of a process that serves operators alone: `GAVEL_OPS_LISTEN`, `GAVEL_GRACE_MS`, `GAVEL_DRAIN_DELAY_MS`,
    /// `GAVEL_CORS_ORIGINS`, and those of [`ConnectionLimits`], [`Patience`] and [`TraceConfig`].
    pub fn of_worker(env: &mut Env) -> Self {
        let grace_ms = env.number("GAVEL_GRACE_MS", 20_000, (100, 600_000));
        let delay_ms = env.number("GAVEL_DRAIN_DELAY_MS", 0, (0, 60_000));
        if delay_ms >= grace_ms {
            let problem = format!("GAVEL_DRAIN_DELAY_MS is {delay_ms}; allowed: less than GAVEL_GRACE_MS, {grace_ms}");
            env.problem(problem);
        }
        Self {
            listen: None,
            ops_listen: address(env, "GAVEL_OPS_LISTEN", DEFAULT_OPS_LISTEN),
            grace: Duration::from_millis(grace_ms.into()),
            drain_delay: Duration::from_millis(delay_ms.into()),
            connections: ConnectionLimits::from_env(env),
            patience: Patience::from_env(env),
            cors_origins: cors_origins(env),
            traces: TraceConfig::from_env(env),
            unlisted: Vec::new(),
        }
    }

    /// Says which variables it has been given that nobody reads.
    pub(crate) fn warn(&self) {
        for name in &self.unlisted {
            tracing::warn!(
                variable = name,
                "nothing reads this variable; is it misspelt? --help lists those that there are"
            );
        }
    }

    /// Returns whether nobody but this machine can connect.
    pub fn is_loopback(&self) -> bool {
        self.listen.iter().chain([&self.ops_listen]).all(|address| address.ip().is_loopback())
    }
}

fn address(env: &mut Env, name: &str, default: SocketAddr) -> SocketAddr {
    env.optional(name, &format!("an address and port, such as {default}")).unwrap_or(default)
}

/// What the connections of the public may take of a process.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections at the same time: one more waits to be accepted.
    pub total: u32,
    /// Connections from one address, trusted proxies aside: one more is closed. 0 for no limit.
    pub per_address: u32,
    /// Gateways whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bytes of requests held at the same time, over all connections: one more request is refused.
    pub body_bytes: usize,
}

impl ConnectionLimits {
    /// `GAVEL_CONNECTIONS`, `GAVEL_CONNECTIONS_PER_ADDRESS`, `GAVEL_TRUSTED_PROXIES`, `GAVEL_BODY_BYTES`.
    fn from_env(env: &mut Env) -> Self {
        let allowed = "addresses or networks separated by commas, such as 10.0.0.0/8,192.168.7.2,fd00::/8";
        let proxies: Vec<Proxy> = env.list("GAVEL_TRUSTED_PROXIES", allowed);
        let body_bytes = env.number("GAVEL_BODY_BYTES", 32 << 20, (1 << 20, 1 << 30));
        Self {
            total: env.number("GAVEL_CONNECTIONS", 10_000, (1, 1_000_000)),
            per_address: env.number("GAVEL_CONNECTIONS_PER_ADDRESS", 1_000, (0, 1_000_000)),
            trusted_proxies: proxies.into_iter().map(|Proxy(network)| network).collect(),
            body_bytes: usize::try_from(body_bytes).unwrap_or(usize::MAX),
        }
    }
}

/// A network, or a single address.
struct Proxy(IpNet);

impl std::str::FromStr for Proxy {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self)
            .or_else(|error| text.parse().map(|address: IpAddr| Self(address.into())).map_err(|_| error))
    }
}

/// The times for which a connection is waited for that takes a place and does nothing with it.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From its beginning to the end of HTTP/2's preface, or of as many bytes of a request of HTTP/1.1.
    pub greeting: Duration,
    /// HTTP/1.1: from the end of one request to the end of the next one's headers, so also between two. Longer than the
    /// clients keep theirs (90 s is usual), or one is closed while a request is on its way.
    pub headers: Duration,
    /// From a request's headers to the end of its body, whatever time-out its client names.
    pub body: Duration,
    /// HTTP/2: a peer from which nothing came for so long is asked whether it is there, and has as long again to
    /// answer. Whoever stopped in the middle of a frame, or between two of one header, can't.
    pub ping: Duration,
    /// One on which no request began for so long, and none is under way, is closed.
    pub idle: Duration,
}

impl Patience {
    /// `GAVEL_GREETING_TIMEOUT_MS`, `GAVEL_HEADERS_TIMEOUT_MS`, `GAVEL_BODY_TIMEOUT_MS`, `GAVEL_PING_MS`,
    /// `GAVEL_IDLE_TIMEOUT_MS`.
    fn from_env(env: &mut Env) -> Self {
        let mut millis = |name, default| env.millis(name, default, (100, 86_400_000));
        Self {
            greeting: millis("GAVEL_GREETING_TIMEOUT_MS", 10_000),
            headers: millis("GAVEL_HEADERS_TIMEOUT_MS", 120_000),
            body: millis("GAVEL_BODY_TIMEOUT_MS", 10_000),
            ping: millis("GAVEL_PING_MS", 20_000),
            idle: millis("GAVEL_IDLE_TIMEOUT_MS", 300_000),
        }
    }
}

fn cors_origins(env: &mut Env) -> Vec<String> {
    let origins: Vec<String> = env.list("GAVEL_CORS_ORIGINS", "an origin");
    let is_origin = |origin: &str| {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains('/') && !host.contains('*'))
    };
    for origin in origins.iter().filter(|origin| !is_origin(origin)) {
        let allowed = "scheme://host[:port] without a path, separated by commas";
        env.problem(format!("GAVEL_CORS_ORIGINS has {origin:?}; allowed: {allowed}"));
    }
    origins
}
