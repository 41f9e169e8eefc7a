//! Configuration from the environment: one struct per concern, and one error that lists everything that is wrong.
//!
//! Every secret `NAME` may come from a file instead: `NAME_FILE` holds its path.
use crate::auth::{KeySource, Location};
use secrecy::SecretString;
use std::{collections::HashMap, fmt, net::SocketAddr, str::FromStr, time::Duration};

/// Everything that is missing or malformed, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// One line for each variable.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.problems.len())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

/// Reads variables and remembers what was wrong with them.
#[derive(Debug)]
pub struct Env {
    variables: HashMap<String, String>,
    problems: Vec<String>,
}

impl Env {
    /// This process's environment.
    pub fn from_process() -> Self {
        Self::new(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// The given variables.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Self { variables, problems: Vec::new() }
    }

    /// A variable that may be absent.
    pub fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &str, allowed: &str) -> Option<T> {
        let value = self.variables.get(name)?;
        match value.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problems.push(format!("{name} is {value:?}: {error}; allowed: {allowed}"));
                None
            }
        }
    }

    /// A number within limits, or its default.
    pub fn number(&mut self, name: &str, default: u32, (least, most): (u32, u32)) -> u32 {
        let allowed = format!("{least} to {most}");
        let number = self.optional(name, &allowed).unwrap_or(default);
        if !(least..=most).contains(&number) {
            self.problems.push(format!("{name} is {number}; allowed: {allowed}"));
        }
        number
    }

    /// A text, or its default.
    pub fn text(&mut self, name: &str, default: &str) -> String {
        self.variables.get(name).map_or(default, String::as_str).to_owned()
    }

    /// A required secret, from `name` or from the file that `name_FILE` names.
    pub fn secret(&mut self, name: &str, what: &str) -> SecretString {
        let from_file = format!("{name}_FILE");
        let value = match (self.variables.get(name), self.variables.get(&from_file)) {
            (Some(_), Some(_)) => Err(format!("{name} and {from_file} are both set; allowed: one of them")),
            (Some(value), None) => Ok(value.clone()),
            (None, Some(path)) => std::fs::read_to_string(path)
                .map(|text| text.trim_end().to_owned())
                .map_err(|error| format!("{from_file} names {path:?}, which can't be read: {error}")),
            (None, None) => Err(format!("{name} is missing: {what} (or {from_file}, a path to it)")),
        };
        SecretString::from(value.unwrap_or_else(|problem| {
            self.problems.push(problem);
            String::new()
        }))
    }

    /// A required secret that must be a URL of one of these schemes.
    pub fn secret_url(&mut self, name: &str, schemes: &[&str], what: &str) -> SecretString {
        use secrecy::ExposeSecret;
        let found = self.problems.len();
        let secret = self.secret(name, what);
        let fits = |url: &str| schemes.iter().any(|scheme| url.starts_with(&format!("{scheme}://")));
        if self.problems.len() == found && !fits(secret.expose_secret()) {
            self.problems.push(format!("{name} is no such URL; allowed: {}://…, {what}", schemes.join("://… or ")));
        }
        secret
    }

    /// All problems at once, if there are any.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.problems }) }
    }
}

/// The servers behind a process.
#[derive(Debug, Clone)]
pub struct Backends {
    /// PostgreSQL: the truth.
    pub database_url: SecretString,
    /// RabbitMQ: what happened.
    pub amqp_url: SecretString,
    /// Redis: what people look at.
    pub redis_url: SecretString,
    /// Connections to PostgreSQL.
    pub pools: PoolSizes,
    /// How often calls may come.
    pub rates: Rates,
    /// How streams are kept.
    pub streams: Streams,
    /// How long a worker that says nothing keeps its jobs.
    pub lease: Duration,
    /// Put before every cache key, so that several systems can share one Redis.
    pub cache_prefix: String,
}

/// Connections to PostgreSQL, a pool for each kind of work.
#[derive(Debug, Clone, Copy)]
pub struct PoolSizes {
    /// For calls that change something.
    pub calls: u32,
    /// For reads.
    pub reads: u32,
    /// For jobs, messages and schedules.
    pub jobs: u32,
    /// For loops over pending work.
    pub relay: u32,
}

impl PoolSizes {
    /// `GAVEL_POOL_SIZE`, `GAVEL_READ_POOL_SIZE`, `GAVEL_JOB_POOL_SIZE`, `GAVEL_RELAY_POOL_SIZE`.
    fn from_env(env: &mut Env) -> Self {
        Self {
            calls: env.number("GAVEL_POOL_SIZE", 16, (1, 500)),
            reads: env.number("GAVEL_READ_POOL_SIZE", 8, (1, 500)),
            jobs: env.number("GAVEL_JOB_POOL_SIZE", 16, (1, 500)),
            relay: env.number("GAVEL_RELAY_POOL_SIZE", 4, (1, 500)),
        }
    }
}

/// How often calls that change something may come to one process, a second; 0 for no limit. Twice as many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// From one caller.
    pub per_caller: u32,
    /// About one key of a batched handler.
    pub per_key: u32,
}

impl Rates {
    /// `GAVEL_CALLS_PER_CALLER`, `GAVEL_CALLS_PER_KEY`.
    fn from_env(env: &mut Env) -> Self {
        Self {
            per_caller: env.number("GAVEL_CALLS_PER_CALLER", 100, (0, 1_000_000)),
            per_key: env.number("GAVEL_CALLS_PER_KEY", 0, (0, 1_000_000)),
        }
    }
}

/// How streams are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// A stream says at least so often that it is alive.
    pub heartbeat: Duration,
    /// A client that takes nothing for so long is dropped.
    pub patience: Duration,
}

impl Streams {
    /// `GAVEL_HEARTBEAT_MS`, `GAVEL_STREAM_PATIENCE_MS`.
    fn from_env(env: &mut Env) -> Self {
        Self {
            heartbeat: Duration::from_millis(env.number("GAVEL_HEARTBEAT_MS", 10_000, (50, 60_000)).into()),
            patience: Duration::from_millis(env.number("GAVEL_STREAM_PATIENCE_MS", 30_000, (50, 600_000)).into()),
        }
    }
}

impl Backends {
    /// `DATABASE_URL`, `AMQP_URL`, `REDIS_URL`, the pools' sizes, the rates, the streams, `GAVEL_LEASE_MS`, `GAVEL_CACHE_PREFIX`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            database_url: env.secret_url("DATABASE_URL", &["postgres", "postgresql"], "PostgreSQL, the ledger"),
            amqp_url: env.secret_url("AMQP_URL", &["amqp", "amqps"], "RabbitMQ, the events"),
            redis_url: env.secret_url("REDIS_URL", &["redis"], "Redis, the read model"),
            pools: PoolSizes::from_env(env),
            rates: Rates::from_env(env),
            streams: Streams::from_env(env),
            lease: Duration::from_millis(env.number("GAVEL_LEASE_MS", 15_000, (500, 600_000)).into()),
            cache_prefix: env.text("GAVEL_CACHE_PREFIX", "gavel"),
        }
    }
}

/// How a process listens and leaves.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Where routes, health and metrics are served.
    pub listen: SocketAddr,
    /// How long a drain may take before the process gives up.
    pub grace: Duration,
    /// How long readiness is off before the listener closes, so that a balancer notices.
    pub drain_delay: Duration,
    /// Connections at the same time: one more waits to be accepted.
    pub connections: u32,
    /// How long a connection may be of no use.
    pub patience: Patience,
    /// Web pages of these origins may call.
    pub cors_origins: Vec<String>,
}

impl ProcessConfig {
    /// `GAVEL_LISTEN`, `GAVEL_GRACE_MS`, `GAVEL_DRAIN_DELAY_MS`, `GAVEL_CONNECTIONS`, `GAVEL_CORS_ORIGINS`, and those of
    /// [`Patience`].
    pub fn from_env(env: &mut Env, default_listen: SocketAddr) -> Self {
        let grace_ms = env.number("GAVEL_GRACE_MS", 20_000, (100, 600_000));
        let delay_ms = env.number("GAVEL_DRAIN_DELAY_MS", 0, (0, 60_000));
        if delay_ms >= grace_ms {
            let problem = format!("GAVEL_DRAIN_DELAY_MS is {delay_ms}; allowed: less than GAVEL_GRACE_MS, {grace_ms}");
            env.problems.push(problem);
        }
        Self {
            listen: env.optional("GAVEL_LISTEN", "an address and port, such as 0.0.0.0:8080").unwrap_or(default_listen),
            grace: Duration::from_millis(grace_ms.into()),
            drain_delay: Duration::from_millis(delay_ms.into()),
            connections: env.number("GAVEL_CONNECTIONS", 10_000, (1, 1_000_000)),
            patience: Patience::from_env(env),
            cors_origins: cors_origins(env),
        }
    }
}

/// How long a connection is waited for that takes a place and does nothing with it.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From its beginning to the end of HTTP/2's preface, or of as many bytes of a request of HTTP/1.1.
    pub greeting: Duration,
    /// HTTP/1.1: from the end of one request to the end of the next one's headers, so also between two. Longer than the
    /// clients keep theirs (90 s is usual), or one is closed while a request is on its way.
    pub headers: Duration,
    /// HTTP/2: a peer from which nothing came for so long is asked whether it is there, and has as long again to answer.
    /// Whoever stopped in the middle of a frame, or between two of one header, can't.
    pub ping: Duration,
    /// One on which no request began for so long, and none is under way, is closed.
    pub idle: Duration,
}

impl Patience {
    /// `GAVEL_GREETING_TIMEOUT_MS`, `GAVEL_HEADERS_TIMEOUT_MS`, `GAVEL_PING_MS`, `GAVEL_IDLE_TIMEOUT_MS`.
    fn from_env(env: &mut Env) -> Self {
        let mut millis = |name, default| Duration::from_millis(env.number(name, default, (100, 86_400_000)).into());
        Self {
            greeting: millis("GAVEL_GREETING_TIMEOUT_MS", 10_000),
            headers: millis("GAVEL_HEADERS_TIMEOUT_MS", 120_000),
            ping: millis("GAVEL_PING_MS", 20_000),
            idle: millis("GAVEL_IDLE_TIMEOUT_MS", 300_000),
        }
    }
}

fn cors_origins(env: &mut Env) -> Vec<String> {
    let text = env.text("GAVEL_CORS_ORIGINS", "");
    let origins: Vec<_> =
        text.split(',').map(str::trim).filter(|origin| !origin.is_empty()).map(str::to_owned).collect();
    let is_origin = |origin: &str| {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains('/') && !host.contains('*'))
    };
    for origin in origins.iter().filter(|origin| !is_origin(origin)) {
        let allowed = "scheme://host[:port] without a path, separated by commas";
        env.problems.push(format!("GAVEL_CORS_ORIGINS has {origin:?}; allowed: {allowed}"));
    }
    origins
}

/// How tokens are checked.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// Where the public keys come from.
    pub keys: KeySource,
    /// The issuer a token must name.
    pub issuer: String,
    /// The audience a token must name.
    pub audience: String,
    /// The private key of the development login, PEM; none where there is no such login.
    pub dev_signing_key: Option<SecretString>,
}

impl TokenConfig {
    /// `GAVEL_JWT_PUBLIC_KEY` (or `_FILE`) or `GAVEL_JWKS`; `GAVEL_JWT_ISSUER`, `GAVEL_JWT_AUDIENCE`; `GAVEL_DEV_LOGIN` with
    /// `GAVEL_JWT_SIGNING_KEY` (or `_FILE`).
    pub fn from_env(env: &mut Env) -> Self {
        let dev_login = env.optional("GAVEL_DEV_LOGIN", "true or false").unwrap_or(false);
        Self {
            keys: keys_from_env(env),
            issuer: env.text("GAVEL_JWT_ISSUER", "gavel"),
            audience: env.text("GAVEL_JWT_AUDIENCE", "gavel"),
            dev_signing_key: dev_login
                .then(|| env.secret("GAVEL_JWT_SIGNING_KEY", "the private key (PEM) that GAVEL_DEV_LOGIN signs with")),
        }
    }
}

/// A file is read again while the process runs, a text stays.
fn keys_from_env(env: &mut Env) -> KeySource {
    const PEM: &str = "GAVEL_JWT_PUBLIC_KEY";
    let (jwks, file) =
        (env.variables.get("GAVEL_JWKS").cloned(), env.variables.get("GAVEL_JWT_PUBLIC_KEY_FILE").cloned());
    if let Some(location) = jwks {
        if file.is_some() || env.variables.contains_key(PEM) {
            env.problems.push(format!("GAVEL_JWKS and {PEM} are both set; allowed: one of them"));
        }
        let is_url = location.starts_with("http://") || location.starts_with("https://");
        return KeySource::Jwks(if is_url { Location::Url(location) } else { Location::Path(location.into()) });
    }
    let what = "the public keys (PEM, Ed25519 or RSA) that tokens are checked with; or GAVEL_JWKS, a path or URL";
    let pem = env.secret(PEM, what);
    file.map_or(KeySource::Pem(pem), |file| KeySource::PemFile(file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn one_error_lists_everything() {
        let mut env = env(&[
            ("AMQP_URL", "http://x"),
            ("REDIS_URL", "redis://x"),
            ("REDIS_URL_FILE", "/x"),
            ("GAVEL_POOL_SIZE", "many"),
            ("GAVEL_LISTEN", "8080"),
            ("GAVEL_GRACE_MS", "1"),
            ("GAVEL_JWT_PUBLIC_KEY_FILE", "/nowhere/key.pem"),
        ]);
        Backends::from_env(&mut env);
        ProcessConfig::from_env(&mut env, "0.0.0.0:0".parse().unwrap());
        TokenConfig::from_env(&mut env);
        let text = env.finish().unwrap_err().to_string();
        for named in [
            "DATABASE_URL is missing",
            "AMQP_URL is no such",
            "REDIS_URL and",
            "POOL_SIZE",
            "LISTEN",
            "GRACE_MS",
            "/nowhere/key.pem",
        ] {
            assert!(text.contains(named), "{named} is not in {text}");
        }
        assert!(text.starts_with("the configuration has 7 problem(s)"), "{text}");
    }

    #[test]
    fn a_secret_may_come_from_a_file() {
        let path = std::env::temp_dir().join(format!("gavel-config-test-{}", std::process::id()));
        std::fs::write(&path, "postgres://file\n").unwrap();
        let mut env = env(&[("DATABASE_URL_FILE", path.to_str().unwrap())]);
        assert_eq!(env.secret("DATABASE_URL", "").expose_secret(), "postgres://file");
        std::fs::remove_file(path).unwrap();
        assert_eq!(env.finish(), Ok(()));
    }
}
