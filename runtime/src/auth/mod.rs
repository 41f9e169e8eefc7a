//! Bearer tokens: JWTs signed by EdDSA (Ed25519) or RS256, with issuer, audience, expiry and not-before checked. The algorithm is
//! that of the key and never taken from the token.

mod dev_login;
mod keys;
mod verifier;

pub use keys::{Key, KeySource, Keys, Location};
pub use verifier::Verifier;

pub(crate) use dev_login::{DevLogin, mount as mount_dev_login};
pub(crate) use keys::refresh;

use crate::{Class, Error, Result, clock};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Who calls, as their token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's subject.
    pub subject: String,
    /// What they may do.
    pub role: String,
    /// Until when the token holds, in seconds since 1970.
    pub expires_at: i64,
}

impl Caller {
    /// How long the token still holds.
    pub(crate) fn remaining(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.expires_at - clock::wall().timestamp()).unwrap_or_default())
    }
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

/// Signs a token with an Ed25519 private key (PKCS#8 PEM).
pub fn mint(private_key_pem: &SecretString, claims: &Claims) -> anyhow::Result<String> {
    let key = EncodingKey::from_ed_pem(private_key_pem.expose_secret().as_bytes())?;
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key)?)
}
