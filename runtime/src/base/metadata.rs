//! What goes beside an answer: headers before it, trailers after it.
use poem::http::{HeaderMap, HeaderName, HeaderValue};

/// Says that an answer is the one that the same call was given before, and that nothing was done for it this time.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What goes beside an answer. Each protocol carries it in its own way.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// Before it.
    pub headers: HeaderMap,
    /// After it.
    pub trailers: HeaderMap,
}

impl Metadata {
    /// Of an answer that was given before.
    pub(crate) fn replayed() -> Self {
        let headers = [(REPLAYED, HeaderValue::from_static("true"))].into_iter().collect();
        Self { headers, trailers: HeaderMap::new() }
    }
}
