//! Checking tokens.
use super::{
    claims::{Presented, lacks, refused},
    figures::KeyFigures,
    keys::{self, Key, Keys},
};
use crate::base::Caller;
use crate::{Class, Error, Result, base::clock, config::TokenConfig};
use jsonwebtoken::{Algorithm, Header, Validation, errors::ErrorKind};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::Notify;

/// The longest token looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 4_096;

/// Clocks may differ by so much, in seconds.
const LEEWAY_S: u64 = 5;
/// The reason of a token whose time is over: another one may do.
pub(crate) const EXPIRED: &str = "TOKEN_EXPIRED";
/// The most tokens remembered: some 2 MiB.
const MAX_KNOWN_TOKENS: u64 = 10_000;

/// Checks tokens.
pub struct Verifier {
    keys: RwLock<Keyring>,
    eddsa: Validation,
    rs256: Validation,
    max_lifetime: Duration,
    /// Keys that were last read longer ago count no more.
    max_age: Duration,
    /// Tokens that were found valid, by their SHA-256, until they expire, and by which keys: checking a signature costs
    /// as much as placing what it asks for.
    known: Cache<[u8; 32], Known>,
    figures: Arc<KeyFigures>,
    /// A token named a key that is not known here: there may be a new one.
    pub(crate) missed: Arc<Notify>,
}

/// Public keys, and how often they were replaced.
struct Keyring {
    keys: Keys,
    generation: u64,
}

/// A token that was found valid.
#[derive(Clone)]
struct Known {
    caller: Caller,
    /// The keys that it was checked with. One that was checked while they were being replaced is not taken for checked
    /// by the new ones.
    generation: u64,
}

impl Verifier {
    /// Without keys, until some were read.
    pub fn new(tokens: &TokenConfig) -> Self {
        let validation = |algorithm| {
            let mut validation = Validation::new(algorithm);
            validation.set_issuer(&[&tokens.issuer]);
            validation.set_audience(&[&tokens.audience]);
            validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
            validation.validate_nbf = true;
            validation.leeway = LEEWAY_S;
            validation
        };
        Self {
            keys: RwLock::new(Keyring { keys: Keys::default(), generation: 0 }),
            eddsa: validation(Algorithm::EdDSA),
            rs256: validation(Algorithm::RS256),
            max_lifetime: tokens.max_lifetime,
            max_age: if tokens.keys.may_change() { tokens.keys_max_age } else { Duration::MAX },
            known: Cache::new(MAX_KNOWN_TOKENS),
            figures: Arc::default(),
            missed: Arc::default(),
        }
    }

    /// Returns what can be seen of the keys from outside.
    pub(crate) fn figures(&self) -> &Arc<KeyFigures> {
        &self.figures
    }

    pub(crate) fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Other keys from now on. Tokens that were found valid are checked again: their key may have been taken away.
    pub(crate) fn replace(&self, keys: Keys) {
        self.figures.usable(keys.len());
        let mut keyring = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *keyring = Keyring { keys, generation: keyring.generation + 1 };
        drop(keyring);
        self.known.invalidate_all();
    }

    /// Returns what is wrong with the keys: they could not be read for too long.
    pub(crate) fn stale(&self) -> Option<String> {
        let age = self.figures.age();
        (age > self.max_age).then(|| {
            let hours = age.as_secs() / 3_600;
            format!("the keys that tokens are checked with could not be read for {hours} hours")
        })
    }

    /// Returns who the `authorization` header speaks for; none where there is no header. `check` is asked before a
    /// signature is checked.
    pub(crate) fn caller(
        &self,
        authorization: Option<&str>,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<Option<Caller>> {
        let Some(header) = authorization else { return Ok(None) };
        let (scheme, token) = header.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused("the header must be `Bearer <JWT>`"));
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused("it is too long"));
        }
        if let Some(stale) = self.stale() {
            return Err(Error::new(Class::Unavailable, stale));
        }
        let digest = Sha256::digest(token).into();
        if let Some(known) = self.known.get(&digest) {
            if known.generation == self.generation() && clock::wall().timestamp() < known.caller.expires_at {
                return Ok(Some(known.caller));
            }
            self.known.invalidate(&digest);
        }
        check()?;
        let (keys, generation) = self.keyring();
        let caller = self.check(token, &keys)?;
        self.known.insert(digest, Known { caller: caller.clone(), generation });
        Ok(Some(caller))
    }

    fn keyring(&self) -> (Keys, u64) {
        let keyring = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        (keyring.keys.clone(), keyring.generation)
    }

    fn generation(&self) -> u64 {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    fn check(&self, token: &str, keys: &[Key]) -> Result<Caller> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| self.fault(&error))?;
        check_type(&header)?;
        let fits = |key: &&Key| key.algorithm == header.alg && keys::is_named(key, header.kid.as_deref());
        let mut why = None;
        for key in keys.iter().filter(fits) {
            let validation = if key.algorithm == Algorithm::RS256 { &self.rs256 } else { &self.eddsa };
            match jsonwebtoken::decode::<Presented>(token, &key.decoding, validation) {
                Ok(decoded) => {
                    let expires_at = self.expiry(decoded.claims.exp)?;
                    return decoded.claims.caller(expires_at);
                }
                Err(error) => why = Some(error),
            }
        }
        // A new key may bear the name of none here, or no name at all.
        if why.as_ref().is_none_or(|error| matches!(error.kind(), ErrorKind::InvalidSignature)) {
            self.missed.notify_one();
        }
        Err(why.map_or_else(
            || refused("none of the keys here has its algorithm and key id; allowed: EdDSA and RS256"),
            |error| self.fault(&error),
        ))
    }

    /// Until when a token holds. One that holds for ever can never be taken back.
    fn expiry(&self, exp: Option<i64>) -> Result<i64> {
        let exp = exp.ok_or_else(|| lacks("exp"))?;
        let leeway_s = LEEWAY_S.cast_signed();
        let most_s = i64::try_from(self.max_lifetime.as_secs()).unwrap_or(i64::MAX);
        if exp > clock::wall().timestamp().saturating_add(most_s).saturating_add(leeway_s) {
            return Err(refused(&format!("it is valid for too long; allowed: an exp within {most_s} s from now")));
        }
        Ok(exp.saturating_add(leeway_s))
    }

    /// Returns what is wrong with a token, and what would not be.
    fn fault(&self, error: &jsonwebtoken::errors::Error) -> Error {
        let named = |names: &Option<HashSet<String>>| names.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
        let why = match error.kind() {
            ErrorKind::ExpiredSignature => return refused("it has expired").with_reason(EXPIRED),
            ErrorKind::ImmatureSignature => "its time has not come (nbf)".to_owned(),
            ErrorKind::InvalidIssuer => format!("its issuer is another; allowed: {}", named(&self.eddsa.iss)),
            ErrorKind::InvalidAudience => format!("its audience is another; allowed: {}", named(&self.eddsa.aud)),
            ErrorKind::MissingRequiredClaim(claim) => format!("it lacks the claim {claim}"),
            ErrorKind::InvalidSignature => "its signature is of no key here".to_owned(),
            _ => "it can't be read as a JWT with the claims sub, role (or roles), iss, aud and exp".to_owned(),
        };
        refused(&why)
    }
}

/// Only what was made to let somebody in: a token of another type, signed with the same key, means something else
/// (RFC 8725, section 3.11).
fn check_type(header: &Header) -> Result<()> {
    const ALLOWED: [&str; 3] = ["JWT", "at+jwt", "application/at+jwt"];
    let Some(kind) = header.typ.as_deref() else { return Ok(()) };
    if ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(kind)) {
        return Ok(());
    }
    Err(refused(&format!("it is of another type (typ); allowed: {} or none", ALLOWED.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::source;
    use crate::{
        auth::{Claims, mint},
        config::KeySource,
    };
    use ed25519_dalek::{
        SigningKey,
        pkcs8::{EncodePrivateKey, EncodePublicKey, spki::der::pem::LineEnding},
    };
    use secrecy::SecretString;

    const DAY: Duration = Duration::from_hours(24);

    fn pair(seed: u8) -> (SecretString, Keys) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let private = SecretString::from(key.to_pkcs8_pem(LineEnding::LF).unwrap().as_str().to_owned());
        let public = key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
        (private, source::from_pem(&public).unwrap().keys)
    }

    fn verifier(source: KeySource) -> (SecretString, Verifier) {
        let (private, keys) = pair(7);
        let verifier = Verifier::new(&TokenConfig {
            keys: source,
            keys_max_age: DAY,
            issuer: "us".to_owned(),
            audience: "them".to_owned(),
            max_lifetime: DAY,
            dev_signing_key: None,
        });
        verifier.replace(keys);
        (private, verifier)
    }

    fn with_pem() -> (SecretString, Verifier) {
        verifier(KeySource::Pem(SecretString::from("read already")))
    }

    fn good() -> Claims {
        let now = clock::wall().timestamp();
        let [sub, iss, aud] = ["ann", "us", "them"].map(str::to_owned);
        Claims { sub, roles: vec!["guest".to_owned()], iss, aud, iat: now, exp: now + 60 }
    }

    fn bearer(private: &SecretString, claims: &Claims) -> String {
        format!("Bearer {}", mint(private, claims).unwrap())
    }

    fn ask(verifier: &Verifier, header: &str) -> Result<Option<Caller>> {
        verifier.caller(Some(header), || Ok(()))
    }

    #[test]
    fn a_remembered_token_is_refused_once_it_has_expired() {
        let (private, verifier) = with_pem();
        // It has expired, and the leeway is nearly over.
        let exp = clock::wall().timestamp() + 2 - LEEWAY_S.cast_signed();
        let header = bearer(&private, &Claims { exp, ..good() });
        assert_eq!(ask(&verifier, &header).unwrap().unwrap().subject, "ann");
        verifier.known.run_pending_tasks();
        assert_eq!(verifier.known.entry_count(), 1, "remembered");
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while ask(&verifier, &header).is_ok() {
            assert!(std::time::Instant::now() < until, "a token is taken long after it has expired");
            std::thread::yield_now();
        }
        verifier.known.run_pending_tasks();
        assert_eq!(verifier.known.entry_count(), 0, "forgotten");
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said_in_words_of_our_own() {
        let (private, verifier) = with_pem();
        let now = clock::wall().timestamp();
        let text = |text: &str| text.to_owned();
        let said = |header: &str| ask(&verifier, header).unwrap_err();
        let minted = |claims: &Claims| said(&bearer(&private, claims)).to_string();
        let expired = said(&bearer(&private, &Claims { exp: now - 60, ..good() }));
        assert!(expired.message().contains("it has expired") && expired.reason() == Some(EXPIRED), "{expired}");
        assert!(minted(&Claims { iss: text("others"), ..good() }).contains("its issuer is another; allowed: us"));
        assert!(minted(&Claims { aud: text("others"), ..good() }).contains("its audience is another; allowed: them"));
        assert!(minted(&Claims { roles: vec![], ..good() }).contains("it lacks the claim role"));
        for exp in [now + 100_000, i64::MAX] {
            assert!(minted(&Claims { exp, ..good() }).contains("it is valid for too long"), "{exp}");
        }
        let signed = bearer(&private, &good());
        let (body, _) = signed.rsplit_once('.').unwrap();
        assert!(said(&format!("{body}.{}", "A".repeat(86))).message().contains("its signature is of no key here"));
        assert!(said("Bearer no token").message().contains("can't be read as a JWT"));
    }

    #[test]
    fn a_token_of_another_type_lets_nobody_in() {
        let (private, verifier) = with_pem();
        let key = jsonwebtoken::EncodingKey::from_ed_pem(secrecy::ExposeSecret::expose_secret(&private).as_bytes());
        let key = key.unwrap();
        let typed = |typ: Option<&str>| {
            let header = Header { typ: typ.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
            ask(&verifier, &format!("Bearer {}", jsonwebtoken::encode(&header, &good(), &key).unwrap()))
        };
        for fits in [None, Some("JWT"), Some("jwt"), Some("at+jwt"), Some("application/at+jwt")] {
            assert!(typed(fits).is_ok(), "{fits:?}");
        }
        for other in ["logout+jwt", "dpop+jwt", ""] {
            assert!(typed(Some(other)).unwrap_err().message().contains("another type"), "{other}");
        }
    }

    #[test]
    fn another_token_of_the_same_caller_is_checked_by_itself() {
        let (private, verifier) = with_pem();
        let good = bearer(&private, &good());
        assert!(ask(&verifier, &good).is_ok());
        assert!(ask(&verifier, &good.replace("Bearer", "bearer")).is_ok(), "schemes have no case, RFC 9110");
        let mut forged = good.clone();
        let last = forged.pop().unwrap();
        forged.push(if last == 'A' { 'Q' } else { 'A' });
        assert!(ask(&verifier, &forged).is_err(), "a signature that differs is no known token");
        assert!(ask(&verifier, &good).is_ok());
    }

    #[test]
    fn a_token_that_was_checked_while_keys_were_replaced_is_checked_again() {
        let (private, verifier) = with_pem();
        let header = bearer(&private, &good());
        let digest: [u8; 32] = Sha256::digest(header.strip_prefix("Bearer ").unwrap()).into();
        let (old, generation) = verifier.keyring();
        let caller = verifier.check(header.strip_prefix("Bearer ").unwrap(), &old).unwrap();
        verifier.replace(pair(8).1);
        // What a call does that began before and is slow to remember.
        verifier.known.insert(digest, Known { caller, generation });
        assert!(ask(&verifier, &header).is_err(), "its key was taken away");
    }

    #[test]
    fn an_unknown_token_is_checked_only_where_that_is_allowed() {
        let (private, verifier) = with_pem();
        let header = bearer(&private, &good());
        let refuse = || Err(Error::new(Class::Exhausted, "later"));
        assert_eq!(verifier.caller(Some(&header), refuse).unwrap_err().class(), Class::Exhausted);
        assert!(ask(&verifier, &header).is_ok());
        assert!(verifier.caller(Some(&header), refuse).is_ok(), "known by now");
    }

    #[test]
    fn keys_that_could_not_be_read_for_too_long_count_no_more() {
        let (private, verifier) = verifier(KeySource::PemFile("somewhere".into()));
        let header = bearer(&private, &good());
        assert!(ask(&verifier, &header).is_ok());
        verifier.figures().are_of(DAY + Duration::from_secs(1));
        let stale = ask(&verifier, &header).unwrap_err();
        assert!(stale.class() == Class::Unavailable && stale.message().contains("24 hours"), "{stale}");
        assert!(verifier.caller(None, || Ok(())).is_ok(), "who brings no token needs no keys");
        verifier.figures().are_of(Duration::ZERO);
        assert!(ask(&verifier, &header).is_ok());
    }
}
