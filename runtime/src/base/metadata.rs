//! What goes beside an answer: headers before it, trailers after it.
use poem::http::{HeaderMap, HeaderName, HeaderValue};

/// Says that an answer is the one that the same call was given before, and that nothing was done for it this time.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Says that the same call again would fail again,
/// <https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback>.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What goes beside an answer. Each protocol carries it in its own way.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// Before it.
    pub headers: HeaderMap,
    /// After it.
    pub trailers: HeaderMap,
}

impl Metadata {
    /// Of an error that comes back however often the call is made.
    pub(crate) fn never_again() -> Self {
        let headers = [(PUSHBACK, HeaderValue::from_static("-1"))].into_iter().collect();
        Self { headers, trailers: HeaderMap::new() }
    }

    /// Whether an answer with these headers says so.
    pub(crate) fn is_never_again(headers: &HeaderMap) -> bool {
        headers.contains_key(PUSHBACK)
    }

    /// Of an answer that was given before.
    pub(crate) fn replayed() -> Self {
        let headers = [(REPLAYED, HeaderValue::from_static("true"))].into_iter().collect();
        Self { headers, trailers: HeaderMap::new() }
    }
}
