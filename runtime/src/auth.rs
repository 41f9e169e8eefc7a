//! Bearer tokens: EdDSA (Ed25519) JWTs with issuer, audience and expiry checked. The algorithm is pinned here and never
//! taken from the token.
use crate::{Class, Error, Result, clock};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest token looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 4_096;

/// Clocks may differ by so much, in seconds.
const LEEWAY_S: u64 = 5;
/// The most tokens remembered: some 2 MiB.
const MAX_KNOWN_TOKENS: u64 = 10_000;

/// Who calls, as their token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's subject.
    pub subject: String,
    /// What they may do.
    pub role: String,
}

/// Who may call a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone. A token, where one is sent, must still be valid.
    Public,
    /// Anyone with a valid token.
    Authenticated,
    /// A valid token with one of these roles.
    Roles(&'static [&'static str]),
}

impl Access {
    /// Checks that `caller` may pass.
    pub fn check(self, caller: Option<&Caller>) -> Result<()> {
        match (self, caller) {
            (Self::Public, _) | (Self::Authenticated, Some(_)) => Ok(()),
            (Self::Authenticated | Self::Roles(_), None) => {
                Err(Error::new(Class::Unauthenticated, "a bearer token is required: authorization: Bearer <JWT>"))
            }
            (Self::Roles(roles), Some(caller)) if roles.contains(&caller.role.as_str()) => Ok(()),
            (Self::Roles(roles), Some(caller)) => Err(Error::new(
                Class::Denied,
                format!("role {:?} may not do this; allowed: {}", caller.role, roles.join(", ")),
            )),
        }
    }
}

/// The claims of a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// Subject: the user.
    pub sub: String,
    /// What the user may do.
    pub role: String,
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: String,
    /// Issued at, seconds since 1970.
    pub iat: i64,
    /// Expires at, seconds since 1970.
    pub exp: i64,
}

/// Checks tokens.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
    /// Tokens that were found valid, by their SHA-256, until they expire: checking a signature costs as much as placing
    /// what it asks for.
    known: Cache<[u8; 32], Known>,
}

#[derive(Clone)]
struct Known {
    caller: Caller,
    expires_at: i64,
}

impl Verifier {
    /// Takes an Ed25519 public key (PEM) and the issuer and audience that tokens must name.
    pub fn new(public_key_pem: &str, issuer: &str, audience: &str) -> anyhow::Result<Self> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        let key = DecodingKey::from_ed_pem(public_key_pem.as_bytes())?;
        Ok(Self { key, validation, known: Cache::new(MAX_KNOWN_TOKENS) })
    }

    /// Who the `authorization` header speaks for; none where there is no header.
    pub fn caller(&self, authorization: Option<&str>) -> Result<Option<Caller>> {
        let Some(header) = authorization else { return Ok(None) };
        let refuse = |why: &str| Error::new(Class::Unauthenticated, format!("the bearer token is not valid: {why}"));
        let token = header.strip_prefix("Bearer ").ok_or_else(|| refuse("the header must be `Bearer <JWT>`"))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refuse("it is too long"));
        }
        let digest = Sha256::digest(token).into();
        if let Some(Known { caller, expires_at }) = self.known.get(&digest) {
            if clock::wall().timestamp() < expires_at {
                return Ok(Some(caller));
            }
            self.known.invalidate(&digest);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| refuse(&error.to_string()))?
            .claims;
        let caller = Caller { subject: claims.sub, role: claims.role };
        let expires_at = claims.exp.saturating_add(LEEWAY_S.cast_signed());
        self.known.insert(digest, Known { caller: caller.clone(), expires_at });
        Ok(Some(caller))
    }
}

/// Signs a token with an Ed25519 private key (PKCS#8 PEM).
pub fn mint(private_key_pem: &SecretString, claims: &Claims) -> anyhow::Result<String> {
    let key = EncodingKey::from_ed_pem(private_key_pem.expose_secret().as_bytes())?;
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{
        SigningKey,
        pkcs8::{EncodePrivateKey, EncodePublicKey, spki::der::pem::LineEnding},
    };
    use std::time::{Duration, Instant};

    fn pair() -> (SecretString, Verifier) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let private = SecretString::from(key.to_pkcs8_pem(LineEnding::LF).unwrap().as_str().to_owned());
        let public = key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
        (private, Verifier::new(&public, "us", "them").unwrap())
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
    fn another_token_of_the_same_caller_is_checked_by_itself() {
        let (private, verifier) = pair();
        let exp = clock::wall().timestamp() + 60;
        let (iss, aud) = ("us".to_owned(), "them".to_owned());
        let claims = Claims { sub: "ann".to_owned(), role: "guest".to_owned(), iss, aud, iat: 0, exp };
        let good = format!("Bearer {}", mint(&private, &claims).unwrap());
        assert!(verifier.caller(Some(&good)).is_ok());
        let mut forged = good.clone();
        let last = forged.pop().unwrap();
        forged.push(if last == 'A' { 'Q' } else { 'A' });
        assert!(verifier.caller(Some(&forged)).is_err(), "a signature that differs is no known token");
        assert!(verifier.caller(Some(&good)).is_ok());
    }
}
