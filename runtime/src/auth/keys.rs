//! The public keys that tokens are checked with.
use jsonwebtoken::{Algorithm, DecodingKey};
use std::{fmt, sync::Arc};

/// A public key.
pub struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// All of them.
pub type Keys = Arc<[Key]>;

/// Returns whether a token may be signed with that key: where both name one, the same.
pub(super) fn is_named(key: &Key, id: Option<&str>) -> bool {
    key.id.as_deref().zip(id).is_none_or(|(key, token)| key == token)
}
