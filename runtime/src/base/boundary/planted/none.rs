//! Says everything as it is.
#![expect(clippy::disallowed_types, reason = "as the other one")]
use sqlx::PgConnection;

pub(crate) const fn is_any() -> bool {
    false
}

pub(crate) const fn text(text: &str) -> &str {
    text
}

pub(crate) const fn commits_before(_statement: &str) -> bool {
    false
}

#[expect(clippy::unused_async, reason = "as the other one")]
pub(crate) async fn session_for(_statement: &str) -> Result<Option<PgConnection>, sqlx::Error> {
    Ok(None)
}

pub(crate) const fn confirms_at_once() -> bool {
    false
}

pub(crate) const fn takes_on_delivery() -> bool {
    false
}

pub(crate) fn query<E>(query: E) -> E {
    query
}
