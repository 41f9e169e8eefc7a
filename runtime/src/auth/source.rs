//! Where the public keys come from: PEM, or a JWKS document in a file or at a URL.
use super::{jwks, keys::Key};
use crate::{
    base::{files, tls},
    config::{KeySource, Location},
};
use anyhow::{Context, ensure};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::redirect;
use secrecy::ExposeSecret;
use std::{path::PathBuf, time::Duration};

/// A server of keys that does not answer within this time is asked again later.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 256 * 1_024;
/// Redirects followed, all to the same origin.
const MAX_REDIRECTS: usize = 3;

impl KeySource {
    /// The document as it is now.
    pub(crate) async fn text(&self) -> anyhow::Result<String> {
        let text = match self {
            Self::Pem(pem) => return Ok(pem.expose_secret().to_owned()),
            Self::PemFile(path) | Self::Jwks(Location::Path(path)) => files::read_text_later(path).await,
            Self::Jwks(Location::Url { url, ca }) => {
                return fetch(url, ca.as_ref()).await.with_context(|| format!("the keys at {url}"));
            }
        };
        text.with_context(|| format!("the keys in {self} can't be read"))
    }

    /// The keys in such a document.
    pub(crate) fn parse(&self, text: &str) -> anyhow::Result<jwks::Read> {
        match self {
            Self::Pem(_) | Self::PemFile(_) => from_pem(text),
            Self::Jwks(_) => jwks::read(text),
        }
        .with_context(|| format!("the keys in {self}"))
    }

    /// Returns whether it can change while the process runs.
    pub(crate) fn may_change(&self) -> bool {
        !matches!(self, Self::Pem(_))
    }

    /// The URL, where it is one: another server, which may be down.
    pub(crate) fn url(&self) -> Option<&str> {
        if let Self::Jwks(Location::Url { url, .. }) = self { Some(url) } else { None }
    }
}

async fn fetch(url: &str, ca: Option<&PathBuf>) -> anyhow::Result<String> {
    // Another origin is another authority: nobody has said that its keys may be believed.
    let same_origin = redirect::Policy::custom(|attempt| {
        let first = attempt.previous().first().map(reqwest::Url::origin);
        if first.as_ref() != Some(&attempt.url().origin()) {
            attempt.error("redirected to another origin")
        } else if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("redirected too often")
        } else {
            attempt.follow()
        }
    });
    let trust = tls::client_config(ca.map(PathBuf::as_path)).context("GAVEL_JWKS_CA_FILE")?;
    let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).https_only(true).redirect(same_origin);
    let client = client.use_preconfigured_tls(trust).build()?;
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(document.len() + chunk.len() <= MAX_DOCUMENT_BYTES, "more than {MAX_DOCUMENT_BYTES} bytes");
        document.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(document)?)
}

/// Ed25519 and RSA public keys, one after another. Others among them are of no use here, and stop nothing.
pub(super) fn from_pem(text: &str) -> anyhow::Result<jwks::Read> {
    const END: &str = "-----END PUBLIC KEY-----";
    let (mut keys, mut ignored) = (Vec::new(), Vec::new());
    let blocks = text.split_inclusive(END).filter(|block| block.contains("-----BEGIN"));
    for (place, block) in blocks.enumerate() {
        let pem = block.trim().as_bytes();
        let ed25519 = DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key));
        match ed25519.or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key))) {
            Ok((algorithm, decoding)) => keys.push(Key { id: None, algorithm, decoding }),
            Err(_) => ignored.push(format!("key {} of the PEM: neither Ed25519 nor RSA", place + 1)),
        }
    }
    ensure!(!keys.is_empty(), "no public key in PEM; allowed: Ed25519 and RSA keys, BEGIN PUBLIC KEY");
    Ok(jwks::Read { keys: keys.into(), ignored })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{SigningKey, pkcs8::EncodePublicKey, pkcs8::spki::der::pem::LineEnding};

    /// secp256k1, of which nothing is signed here.
    const OF_NO_USE: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAE706r5j6Gic9z6gkT9RzfIEMEXAlOmCHs\n\
        jxOR6m2U9xFVdJTWyrrYD5/kbWdyCrUbmnLrY+FFhvTNSG9Nz07FGA==\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn a_key_of_no_use_in_a_pem_stops_neither_the_others_nor_their_withdrawal() {
        let good = SigningKey::from_bytes(&[7; 32]).verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
        let read = from_pem(&format!("{good}{OF_NO_USE}{good}")).unwrap();
        assert_eq!((read.keys.len(), read.ignored.len()), (2, 1));
        assert!(read.ignored[0].contains("key 2"), "{:?}", read.ignored);
        assert!(from_pem(OF_NO_USE).unwrap_err().to_string().contains("Ed25519 and RSA"));
    }
}
