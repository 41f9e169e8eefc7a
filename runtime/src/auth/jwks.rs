//! Reading a JWKS document (RFC 7517), key by key: one that is of no use here is passed over, whatever it is, and the
//! others count (section 5: "Implementations SHOULD ignore JWKs within a JWK Set that use kty values that are not
//! understood").
use super::keys::{Key, Keys};
use anyhow::Context;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

/// The shortest RSA modulus, in base64url: 2048 bits.
const MIN_MODULUS_CHARS: usize = 342;
/// The most keys of one document: each costs a signature's check where a token names none.
const MAX_KEYS: usize = 64;

/// A document's keys, and why each of the others is none that can be used.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) keys: Keys,
    pub(crate) ignored: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// Reads a document. None of its keys may be of use: then every token is refused, as whoever emptied it wishes.
///
/// # Errors
/// When it is no JWKS document.
pub(super) fn read(text: &str) -> anyhow::Result<Read> {
    let document: Document = serde_json::from_str(text).context("no JWKS document: {\"keys\": […]}")?;
    let (mut keys, mut ignored) = (Vec::new(), Vec::new());
    for (place, jwk) in document.keys.iter().enumerate() {
        match key(jwk) {
            Ok(_) if keys.len() == MAX_KEYS => {
                ignored.push(format!("{}: there are more than {MAX_KEYS}", name(jwk, place)));
            }
            Ok(key) => keys.push(key),
            Err(why) => ignored.push(format!("{}: {why:#}", name(jwk, place))),
        }
    }
    Ok(Read { keys: keys.into(), ignored })
}

fn name(jwk: &Value, place: usize) -> String {
    let id = jwk["kid"].as_str().unwrap_or_default();
    let id: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
    if id.is_empty() { format!("key number {}", place + 1) } else { format!("key {id:?}") }
}

fn key(value: &Value) -> anyhow::Result<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).context("not understood; allowed: Ed25519 and RSA keys")?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::RSA(rsa) if rsa.n.trim_end_matches('=').len() < MIN_MODULUS_CHARS => {
            anyhow::bail!("an RSA key that is too short; allowed: from 2048 bits")
        }
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        _ => anyhow::bail!("a kind of key that is not used here; allowed: Ed25519 and RSA keys"),
    };
    let signs = |operations: &Vec<KeyOperations>| operations.contains(&KeyOperations::Verify);
    let is_for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && jwk.common.key_operations.as_ref().is_none_or(signs);
    anyhow::ensure!(is_for_signatures, "not for signatures; allowed: use \"sig\", key_ops \"verify\", or neither");
    let fits = match jwk.common.key_algorithm {
        None => true,
        Some(KeyAlgorithm::EdDSA) => algorithm == Algorithm::EdDSA,
        Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
        Some(_) => false,
    };
    anyhow::ensure!(fits, "for another algorithm; allowed: EdDSA and RS256");
    let decoding = DecodingKey::from_jwk(&jwk).context("it can't be read")?;
    Ok(Key { id: jwk.common.key_id, algorithm, decoding })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"kty":"OKP","crv":"Ed25519","kid":"good","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn read_with(other: &str) -> Read {
        read(&format!(r#"{{"keys":[{other}, {GOOD}]}}"#)).unwrap()
    }

    #[test]
    fn a_key_that_is_of_no_use_leaves_the_others_and_is_named() {
        let short = "s".repeat(MIN_MODULUS_CHARS / 2);
        let rsa_1024 = format!(r#"{{"kty":"RSA","kid":"short","e":"AQAB","n":"{short}"}}"#);
        for (of_no_use, why) in [
            (
                r#"{"kty":"OKP","crv":"X25519","kid":"agree","x":"hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}"#,
                "agree",
            ),
            (r#"{"kty":"EC","crv":"secp256k1","kid":"coin","x":"AA","y":"AA"}"#, "coin"),
            (r#"{"kty":"AKP","alg":"ML-DSA-44","kid":"later","pub":"AA"}"#, "later"),
            (r#"{"kty":"oct","k":"AA"}"#, "key number 1"),
            (r#"{"kty":"OKP","crv":"Ed25519","kid":"broken","x":"%%%"}"#, "broken"),
            (r#"{"kty":"EC","crv":"P-256","kid":"p","x":"AA","y":"AA","use":"sig"}"#, "not used here"),
            (
                r#"{"kty":"OKP","crv":"Ed25519","kid":"e","use":"enc","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
                "sig",
            ),
            (
                r#"{"kty":"OKP","crv":"Ed25519","key_ops":["sign"],"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
                "verify",
            ),
            (rsa_1024.as_str(), "from 2048 bits"),
            (r#""text""#, "not understood"),
        ] {
            let Read { keys, ignored } = read_with(of_no_use);
            assert_eq!(keys.len(), 1, "{of_no_use}: {ignored:?}");
            assert!(ignored.len() == 1 && ignored[0].contains(why), "{of_no_use}: {ignored:?}");
        }
    }

    #[test]
    fn no_keys_are_what_was_meant_and_no_document_is_not() {
        assert!(read(r#"{"keys":[]}"#).unwrap().keys.is_empty());
        for other in ["", "{}", "[]", r#"{"keys":7}"#] {
            assert!(read(other).is_err(), "{other}");
        }
    }
}
