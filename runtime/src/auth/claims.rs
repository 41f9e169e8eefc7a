//! What a token says, as it is written and as it is read.
use crate::base::Caller;
use crate::{Class, Error, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The longest subject, in bytes: OpenID Connect Core 1.0, section 2.
const MAX_SUBJECT_BYTES: usize = 255;
/// The longest role, in bytes.
const MAX_ROLE_BYTES: usize = 64;
/// The most roles of one token.
const MAX_ROLES: usize = 16;

/// The claims of a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// Subject: the user.
    pub sub: String,
    /// What the user may do.
    pub roles: Vec<String>,
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: String,
    /// Issued at, seconds since 1970.
    pub iat: i64,
    /// Expires at, seconds since 1970.
    pub exp: i64,
}

/// Signs a token with an Ed25519 private key (PKCS#8 PEM).
pub fn mint(private_key_pem: &SecretString, claims: &Claims) -> anyhow::Result<String> {
    let key = EncodingKey::from_ed_pem(private_key_pem.expose_secret().as_bytes())?;
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key)?)
}

/// What is read of a token's claims; issuer, audience (one or several) and not-before are only checked.
#[derive(Deserialize)]
pub(super) struct Presented {
    #[serde(default)]
    sub: String,
    /// One role.
    #[serde(default)]
    role: Option<String>,
    /// Several, as in RFC 9068, section 2.2.3.1.
    #[serde(default)]
    roles: Vec<String>,
    pub(super) exp: Option<i64>,
}

impl Presented {
    /// Returns who it speaks for, until `expires_at`.
    pub(super) fn caller(self, expires_at: i64) -> Result<Caller> {
        if self.sub.is_empty() {
            return Err(lacks("sub"));
        }
        let roles: Arc<[String]> = self.role.into_iter().chain(self.roles).filter(|role| !role.is_empty()).collect();
        if roles.is_empty() {
            return Err(lacks("role (or roles)"));
        }
        if !is_name(&self.sub, MAX_SUBJECT_BYTES) {
            return Err(refused(&format!(
                "its subject is no name; allowed: 1 to {MAX_SUBJECT_BYTES} visible ASCII characters"
            )));
        }
        if roles.len() > MAX_ROLES || !roles.iter().all(|role| is_name(role, MAX_ROLE_BYTES)) {
            let allowed = format!("up to {MAX_ROLES} of 1 to {MAX_ROLE_BYTES} visible ASCII characters");
            return Err(refused(&format!("its roles are no names; allowed: {allowed}")));
        }
        Ok(Caller { subject: self.sub, roles, expires_at })
    }
}

/// Names go into log lines, tables and other people's terminals.
pub(super) fn is_name(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(super) fn lacks(claim: &str) -> Error {
    refused(&format!("it lacks the claim {claim}"))
}

/// The token does not hold.
pub(super) fn refused(why: &str) -> Error {
    Error::new(Class::Unauthenticated, format!("the bearer token is not valid: {why}")).with_reason("TOKEN_INVALID")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Caller> {
        serde_json::from_str::<Presented>(json).unwrap().caller(0)
    }

    #[test]
    fn a_token_may_name_one_role_or_several() {
        let roles = |json| read(json).unwrap().roles.join(" ");
        assert_eq!(roles(r#"{"sub":"ann","role":"guest"}"#), "guest");
        assert_eq!(roles(r#"{"sub":"ann","roles":["guest","host"]}"#), "guest host");
        assert_eq!(roles(r#"{"sub":"ann","role":"guest","roles":["host"]}"#), "guest host");
        for none in [r#"{"sub":"ann"}"#, r#"{"sub":"ann","role":"","roles":[]}"#] {
            assert!(read(none).unwrap_err().message().contains("lacks the claim role"), "{none}");
        }
    }

    #[test]
    fn names_that_would_break_a_log_line_a_table_or_a_terminal_are_refused() {
        for sub in ["a\\u0000b", "a\\nb", "a b", "\\u202eann", "\\u2066ann", "\\u200b", "änn"] {
            let refused = read(&format!(r#"{{"sub":"{sub}","role":"guest"}}"#)).unwrap_err();
            assert!(refused.message().contains("its subject is no name"), "{sub}: {refused}");
            let refused = read(&format!(r#"{{"sub":"ann","roles":["{sub}"]}}"#)).unwrap_err();
            assert!(refused.message().contains("its roles are no names"), "{sub}: {refused}");
        }
        assert!(read(&format!(r#"{{"sub":"{}","role":"guest"}}"#, "a".repeat(256))).is_err());
        assert_eq!(read(r#"{"sub":"auth0|7f@example.com","role":"guest"}"#).unwrap().subject, "auth0|7f@example.com");
    }
}
