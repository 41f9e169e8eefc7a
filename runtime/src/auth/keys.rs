//! The public keys that tokens are checked with: PEM or a JWKS document (RFC 7517), read again while the process runs, so that
//! keys can be rotated: the new one is added, tokens are signed with it, the old one is taken away.
use super::Verifier;
use crate::Runtime;
use anyhow::{Context, bail, ensure};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet},
};
use secrecy::{ExposeSecret, SecretString};
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// Keys are read again so often.
const READ_EVERY: Duration = Duration::from_mins(1);
/// And no more often, when tokens name keys that are not known.
const PAUSE: Duration = Duration::from_secs(5);
/// A server of keys that does not answer within this time is asked again later.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 256 * 1_024;
/// The shortest RSA modulus, in base64url: 2048 bits.
const MIN_MODULUS_CHARS: usize = 342;

/// A public key.
pub struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// All of them.
pub type Keys = Arc<Vec<Key>>;

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
    /// At an http or https URL.
    Url(String),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(_) => write!(f, "GAVEL_JWT_PUBLIC_KEY"),
            Self::PemFile(path) | Self::Jwks(Location::Path(path)) => write!(f, "{}", path.display()),
            Self::Jwks(Location::Url(url)) => write!(f, "{url}"),
        }
    }
}

impl KeySource {
    /// Reads the keys.
    ///
    /// # Errors
    /// Says what can't be read, and what is allowed.
    pub async fn read(&self) -> anyhow::Result<Keys> {
        self.parse(&self.text().await?)
    }

    async fn text(&self) -> anyhow::Result<String> {
        let text = match self {
            Self::Pem(pem) => return Ok(pem.expose_secret().to_owned()),
            Self::PemFile(path) | Self::Jwks(Location::Path(path)) => tokio::fs::read_to_string(path).await,
            Self::Jwks(Location::Url(url)) => return fetch(url).await.with_context(|| format!("the keys at {url}")),
        };
        text.with_context(|| format!("the keys in {self} can't be read"))
    }

    fn parse(&self, text: &str) -> anyhow::Result<Keys> {
        match self {
            Self::Pem(_) | Self::PemFile(_) => from_pem(text),
            Self::Jwks(_) => from_jwks(text),
        }
        .with_context(|| format!("the keys in {self}"))
    }
}

async fn fetch(url: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).build()?;
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(document.len() + chunk.len() <= MAX_DOCUMENT_BYTES, "more than {MAX_DOCUMENT_BYTES} bytes");
        document.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(document)?)
}

/// Ed25519 and RSA public keys, one after another.
pub(super) fn from_pem(text: &str) -> anyhow::Result<Keys> {
    const END: &str = "-----END PUBLIC KEY-----";
    let mut keys = Vec::new();
    for block in text.split_inclusive(END).filter(|block| block.contains("-----BEGIN")) {
        let pem = block.trim().as_bytes();
        let (algorithm, decoding) = if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            (Algorithm::EdDSA, key)
        } else {
            let key =
                DecodingKey::from_rsa_pem(pem).context("no Ed25519 or RSA public key in PEM (BEGIN PUBLIC KEY)")?;
            (Algorithm::RS256, key)
        };
        keys.push(Key { id: None, algorithm, decoding });
    }
    ensure!(!keys.is_empty(), "no public key in PEM; allowed: Ed25519 and RSA keys, BEGIN PUBLIC KEY");
    Ok(Arc::new(keys))
}

fn from_jwks(text: &str) -> anyhow::Result<Keys> {
    let set: JwkSet = serde_json::from_str(text).context("no JWKS document")?;
    let keys: Vec<_> = set.keys.iter().filter_map(|jwk| from_jwk(jwk).transpose()).collect::<anyhow::Result<_>>()?;
    ensure!(!keys.is_empty(), "none of its {} keys can be used; allowed: Ed25519 and RSA", set.keys.len());
    Ok(Arc::new(keys))
}

/// None for a key of a kind that is not used here: others may use it.
fn from_jwk(jwk: &Jwk) -> anyhow::Result<Option<Key>> {
    let id = jwk.common.key_id.clone();
    let named = || id.clone().unwrap_or_default();
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::RSA(rsa) if rsa.n.len() < MIN_MODULUS_CHARS => {
            bail!("RSA key {:?} is too short; allowed: from 2048 bits", named())
        }
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        _ => return Ok(None),
    };
    let decoding = DecodingKey::from_jwk(jwk).with_context(|| format!("key {:?}", named()))?;
    Ok(Some(Key { id, algorithm, decoding }))
}

/// Whether a token may be signed with that key: where both name one, the same.
pub(super) fn is_named(key: &Key, id: Option<&str>) -> bool {
    key.id.as_deref().zip(id).is_none_or(|(key, token)| key == token)
}

/// Reads the keys again and again, until the drain. What can't be read leaves those that are known.
pub(crate) async fn refresh(runtime: Runtime, source: KeySource) {
    let Some(verifier) = runtime.verifier() else { return };
    if matches!(source, KeySource::Pem(_)) {
        return;
    }
    let (missed, mut last) = (verifier.missed.clone(), None);
    loop {
        match read_if_changed(&source, verifier, &mut last).await {
            Ok(None) => {}
            Ok(Some(count)) => {
                tracing::info!(keys = count, from = %source, "the keys that tokens are checked with were read");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "the keys that tokens are checked with can't be read; the old ones stay");
            }
        }
        if !runtime.tasks().pause(PAUSE).await {
            return;
        }
        tokio::select! {
            () = runtime.tasks().draining().cancelled() => return,
            () = missed.notified() => {}
            () = tokio::time::sleep(READ_EVERY) => {}
        }
    }
}

/// How many there are, where they are not the same as before.
async fn read_if_changed(
    source: &KeySource,
    verifier: &Verifier,
    last: &mut Option<String>,
) -> anyhow::Result<Option<usize>> {
    let text = source.text().await?;
    if last.as_ref() == Some(&text) {
        return Ok(None);
    }
    let keys = source.parse(&text)?;
    let count = keys.len();
    verifier.replace(keys);
    *last = Some(text);
    Ok(Some(count))
}
