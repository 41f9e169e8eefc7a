//! How tokens are checked.
use super::{Env, ProcessConfig};
use secrecy::SecretString;
use std::{fmt, path::PathBuf, time::Duration};

/// The longest time that a token may be valid where nobody says otherwise: a day.
const DEFAULT_MAX_LIFETIME_S: u32 = 86_400;
/// Time for which keys count that can't be read again, where nobody says otherwise: a day.
const DEFAULT_MAX_AGE_S: u32 = 86_400;

/// Where keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// PEM, one key after another, that stays as it is.
    Pem(SecretString),
    /// A PEM file.
    PemFile(PathBuf),
    /// A JWKS document.
    Jwks(Location),
}

/// Where a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In a file.
    Path(PathBuf),
    /// At a URL.
    Url {
        /// It begins with `https://`.
        url: String,
        /// The certificates (PEM) of whoever signed the server's, in place of those known to everybody.
        ca: Option<PathBuf>,
    },
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(_) => write!(f, "GAVEL_JWT_PUBLIC_KEY"),
            Self::PemFile(path) | Self::Jwks(Location::Path(path)) => write!(f, "{}", path.display()),
            Self::Jwks(Location::Url { url, .. }) => write!(f, "{url}"),
        }
    }
}

/// The way tokens are checked.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// Where the public keys come from.
    pub keys: KeySource,
    /// Time for which keys that were read count while they can't be read again.
    pub keys_max_age: Duration,
    /// The issuer a token must name.
    pub issuer: String,
    /// The audience a token must name.
    pub audience: String,
    /// Time for which a token may be valid from now on: one that is valid longer is refused.
    pub max_lifetime: Duration,
    /// The private key of the development login, PEM; none where there is no such login.
    pub dev_signing_key: Option<SecretString>,
}

impl TokenConfig {
    /// `GAVEL_JWT_PUBLIC_KEY` (or `_FILE`) or `GAVEL_JWKS` with `GAVEL_JWKS_CA_FILE`; `GAVEL_JWKS_MAX_AGE_S`;
    /// `GAVEL_JWT_ISSUER`, `GAVEL_JWT_AUDIENCE`, `GAVEL_JWT_MAX_LIFETIME_S`; `GAVEL_DEV_LOGIN` with
    /// `GAVEL_JWT_SIGNING_KEY` (or `_FILE`), which wants a process that nobody but its own machine can reach.
    pub fn from_env(env: &mut Env, process: &ProcessConfig) -> Self {
        let dev_login = env.optional("GAVEL_DEV_LOGIN", "true or false").unwrap_or(false);
        if dev_login && !process.is_loopback() {
            let allowed = "only where GAVEL_LISTEN and GAVEL_OPS_LISTEN are loopback addresses, such as 127.0.0.1:8080";
            env.problem(format!("GAVEL_DEV_LOGIN gives tokens to anybody who can connect; allowed: {allowed}"));
        }
        let mut seconds = |name, default| Duration::from_secs(env.number(name, default, (60, 31_622_400)).into());
        let (keys_max_age, max_lifetime) = (
            seconds("GAVEL_JWKS_MAX_AGE_S", DEFAULT_MAX_AGE_S),
            seconds("GAVEL_JWT_MAX_LIFETIME_S", DEFAULT_MAX_LIFETIME_S),
        );
        Self {
            keys: keys_from_env(env),
            keys_max_age,
            issuer: env.text("GAVEL_JWT_ISSUER", "gavel"),
            audience: env.text("GAVEL_JWT_AUDIENCE", "gavel"),
            max_lifetime,
            dev_signing_key: dev_login
                .then(|| env.secret("GAVEL_JWT_SIGNING_KEY", "the private key (PEM) that GAVEL_DEV_LOGIN signs with")),
        }
    }
}

/// A file is read again while the process runs, a text stays.
fn keys_from_env(env: &mut Env) -> KeySource {
    const PEM: &str = "GAVEL_JWT_PUBLIC_KEY";
    let owned = |name| env.get(name).map(str::to_owned);
    let (jwks, file, ca) =
        (owned("GAVEL_JWKS"), owned("GAVEL_JWT_PUBLIC_KEY_FILE"), owned("GAVEL_JWKS_CA_FILE").map(Into::into));
    let Some(location) = jwks else {
        let what =
            "the public keys (PEM, Ed25519 or RSA) that tokens are checked with; or GAVEL_JWKS, a path or https URL";
        let pem = env.secret(PEM, what);
        return file.map_or(KeySource::Pem(pem), |file| KeySource::PemFile(file.into()));
    };
    if file.is_some() || env.get(PEM).is_some() {
        env.problem(format!("GAVEL_JWKS and {PEM} are both set; allowed: one of them"));
    }
    match location.split_once("://") {
        None => KeySource::Jwks(Location::Path(location.into())),
        Some((scheme, _)) => {
            // Whoever can change what comes over plain HTTP can make tokens for anybody.
            if scheme != "https" {
                env.problem(format!("GAVEL_JWKS is {location:?}; allowed: a path, or a URL that begins with https://"));
            }
            KeySource::Jwks(Location::Url { url: location, ca })
        }
    }
}
