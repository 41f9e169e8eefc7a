//! Checking tokens.
use super::{
    Caller,
    keys::{self, Key, Keys},
};
use crate::{Class, Error, Result, clock};
use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};
use moka::sync::Cache;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::Notify;

/// The longest token looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 4_096;

/// Clocks may differ by so much, in seconds.
const LEEWAY_S: u64 = 5;
/// The most tokens remembered: some 2 MiB.
const MAX_KNOWN_TOKENS: u64 = 10_000;

/// Checks tokens.
pub struct Verifier {
    keys: RwLock<Keys>,
    eddsa: Validation,
    rs256: Validation,
    /// Tokens that were found valid, by their SHA-256, until they expire: checking a signature costs as much as placing
    /// what it asks for.
    known: Cache<[u8; 32], Caller>,
    /// A token named a key that is not known here: there may be a new one.
    pub(super) missed: Arc<Notify>,
}

impl Verifier {
    /// Takes public keys, and the issuer and audience that tokens must name.
    pub fn new(keys: Keys, issuer: &str, audience: &str) -> Self {
        let validation = |algorithm| {
            let mut validation = Validation::new(algorithm);
            validation.set_issuer(&[issuer]);
            validation.set_audience(&[audience]);
            validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
            validation.validate_nbf = true;
            validation.leeway = LEEWAY_S;
            validation
        };
        Self {
            keys: RwLock::new(keys),
            eddsa: validation(Algorithm::EdDSA),
            rs256: validation(Algorithm::RS256),
            known: Cache::new(MAX_KNOWN_TOKENS),
            missed: Arc::default(),
        }
    }

    /// Other keys from now on. Tokens that were found valid are checked again: their key may have been taken away.
    pub(super) fn replace(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.known.invalidate_all();
    }

    /// Who the `authorization` header speaks for; none where there is no header.
    pub fn caller(&self, authorization: Option<&str>) -> Result<Option<Caller>> {
        let Some(header) = authorization else { return Ok(None) };
        let (scheme, token) = header.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused("the header must be `Bearer <JWT>`"));
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused("it is too long"));
        }
        let digest = Sha256::digest(token).into();
        if let Some(caller) = self.known.get(&digest) {
            if clock::wall().timestamp() < caller.expires_at {
                return Ok(Some(caller));
            }
            self.known.invalidate(&digest);
        }
        let caller = self.check(token)?;
        self.known.insert(digest, caller.clone());
        Ok(Some(caller))
    }

    fn check(&self, token: &str) -> Result<Caller> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| refused(&self.fault(&error)))?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let fits = |key: &&Key| key.algorithm == header.alg && keys::is_named(key, header.kid.as_deref());
        let mut why = None;
        for key in keys.iter().filter(fits) {
            let validation = if key.algorithm == Algorithm::RS256 { &self.rs256 } else { &self.eddsa };
            match jsonwebtoken::decode::<Presented>(token, &key.decoding, validation) {
                Ok(decoded) => return decoded.claims.whole(),
                Err(error) => why = Some(error),
            }
        }
        // A new key may bear the name of none here, or no name at all.
        if why.as_ref().is_none_or(|error| matches!(error.kind(), ErrorKind::InvalidSignature)) {
            self.missed.notify_one();
        }
        Err(why.map_or_else(
            || refused("none of the keys here has its algorithm and key id; allowed: EdDSA and RS256"),
            |error| refused(&self.fault(&error)),
        ))
    }

    /// What is wrong with a token, and what would not be.
    fn fault(&self, error: &jsonwebtoken::errors::Error) -> String {
        let named = |names: &Option<HashSet<String>>| names.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
        match error.kind() {
            ErrorKind::ExpiredSignature => "it has expired".to_owned(),
            ErrorKind::ImmatureSignature => "its time has not come (nbf)".to_owned(),
            ErrorKind::InvalidIssuer => format!("its issuer is another; allowed: {}", named(&self.eddsa.iss)),
            ErrorKind::InvalidAudience => format!("its audience is another; allowed: {}", named(&self.eddsa.aud)),
            ErrorKind::MissingRequiredClaim(claim) => format!("it lacks the claim {claim}"),
            ErrorKind::InvalidSignature => "its signature is of no key here".to_owned(),
            _ => "it can't be read as a JWT with the claims sub, role, iss, aud and exp".to_owned(),
        }
    }
}

/// What is read of a token's claims; issuer, audience (one or several) and not-before are only checked.
#[derive(Deserialize)]
struct Presented {
    #[serde(default)]
    sub: String,
    #[serde(default)]
    role: String,
    exp: Option<i64>,
}

impl Presented {
    fn whole(self) -> Result<Caller> {
        let lacks = |claim: &str| refused(&format!("it lacks the claim {claim}"));
        if self.sub.is_empty() {
            return Err(lacks("sub"));
        }
        if self.role.is_empty() {
            return Err(lacks("role"));
        }
        let expires_at = self.exp.ok_or_else(|| lacks("exp"))?.saturating_add(LEEWAY_S.cast_signed());
        Ok(Caller { subject: self.sub, role: self.role, expires_at })
    }
}

fn refused(why: &str) -> Error {
    Error::new(Class::Unauthenticated, format!("the bearer token is not valid: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Claims, mint};
    use ed25519_dalek::{
        SigningKey,
        pkcs8::{EncodePrivateKey, EncodePublicKey, spki::der::pem::LineEnding},
    };
    use secrecy::SecretString;
    use std::time::{Duration, Instant};

    fn pair() -> (SecretString, Verifier) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let private = SecretString::from(key.to_pkcs8_pem(LineEnding::LF).unwrap().as_str().to_owned());
        let public = key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
        (private, Verifier::new(keys::from_pem(&public).unwrap(), "us", "them"))
    }

    #[test]
    fn a_remembered_token_is_refused_once_it_has_expired() {
        let (private, verifier) = pair();
        // It has expired, and the leeway is nearly over.
        let exp = clock::wall().timestamp() + 2 - LEEWAY_S.cast_signed();
        let (iss, aud) = ("us".to_owned(), "them".to_owned());
        let claims = Claims { sub: "ann".to_owned(), role: "guest".to_owned(), iss, aud, iat: 0, exp };
        let header = format!("Bearer {}", mint(&private, &claims).unwrap());
        assert_eq!(verifier.caller(Some(&header)).unwrap().unwrap().subject, "ann");
        verifier.known.run_pending_tasks();
        assert_eq!(verifier.known.entry_count(), 1, "remembered");
        let until = Instant::now() + Duration::from_secs(10);
        while verifier.caller(Some(&header)).is_ok() {
            assert!(Instant::now() < until, "a token is taken long after it has expired");
            std::thread::yield_now();
        }
        verifier.known.run_pending_tasks();
        assert_eq!(verifier.known.entry_count(), 0, "forgotten");
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said_in_words_of_our_own() {
        let (private, verifier) = pair();
        let now = clock::wall().timestamp();
        let text = |text: &str| text.to_owned();
        let good = || Claims {
            sub: text("ann"),
            role: text("guest"),
            iss: text("us"),
            aud: text("them"),
            iat: now,
            exp: now + 60,
        };
        let said = |token: &str| verifier.caller(Some(&format!("Bearer {token}"))).unwrap_err().to_string();
        let minted = |claims: &Claims| said(&mint(&private, claims).unwrap());
        assert!(minted(&Claims { exp: now - 60, ..good() }).contains("it has expired"));
        assert!(minted(&Claims { iss: text("others"), ..good() }).contains("its issuer is another; allowed: us"));
        assert!(minted(&Claims { aud: text("others"), ..good() }).contains("its audience is another; allowed: them"));
        assert!(minted(&Claims { role: text(""), ..good() }).contains("it lacks the claim role"));
        let signed = mint(&private, &good()).unwrap();
        let (body, _) = signed.rsplit_once('.').unwrap();
        assert!(said(&format!("{body}.{}", "A".repeat(86))).contains("its signature is of no key here"));
        assert!(said("no token").contains("can't be read as a JWT"));
    }

    #[test]
    fn another_token_of_the_same_caller_is_checked_by_itself() {
        let (private, verifier) = pair();
        let exp = clock::wall().timestamp() + 60;
        let (iss, aud) = ("us".to_owned(), "them".to_owned());
        let claims = Claims { sub: "ann".to_owned(), role: "guest".to_owned(), iss, aud, iat: 0, exp };
        let good = format!("Bearer {}", mint(&private, &claims).unwrap());
        assert!(verifier.caller(Some(&good)).is_ok());
        assert!(verifier.caller(Some(&good.replace("Bearer", "bearer"))).is_ok(), "schemes have no case, RFC 9110");
        let mut forged = good.clone();
        let last = forged.pop().unwrap();
        forged.push(if last == 'A' { 'Q' } else { 'A' });
        assert!(verifier.caller(Some(&forged)).is_err(), "a signature that differs is no known token");
        assert!(verifier.caller(Some(&good)).is_ok());
    }
}
