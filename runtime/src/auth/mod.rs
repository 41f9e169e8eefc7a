//! Bearer tokens: JWTs signed by EdDSA (Ed25519) or RS256, with type, issuer, audience, lifetime and not-before
//! checked. The algorithm is that of the key and never taken from the token.

mod claims;
mod dev_login;
mod figures;
mod jwks;
mod keys;
mod source;
mod verifier;

pub use crate::{
    base::caller::{Access, Caller},
    config::{KeySource, Location},
};
pub use claims::{Claims, mint};
pub use keys::{Key, Keys};
pub use verifier::Verifier;

pub(crate) use dev_login::{DevLogin, mount as mount_dev_login};
pub(crate) use figures::KeyFigures;
pub(crate) use jwks::Read;
pub(crate) use verifier::EXPIRED;
