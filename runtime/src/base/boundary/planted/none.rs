//! Says everything as it is.
pub(crate) const fn is_any() -> bool {
    false
}

pub(crate) const fn text(text: &str) -> &str {
    text
}

pub(crate) const fn commits_before(_statement: &str) -> bool {
    false
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
