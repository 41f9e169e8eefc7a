//! The one place that makes ids.
use uuid::Uuid;

/// An id for a new row or event: version 7, so that neighbours in time are neighbours in an index.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn ordered() -> Uuid {
    Uuid::now_v7()
}

/// An id that tells nothing, for correlation ids and lease tokens: version 4.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn random() -> Uuid {
    Uuid::new_v4()
}
