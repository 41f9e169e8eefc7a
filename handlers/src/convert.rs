//! Users, between tokens and requests, our tables, and the rules.
use gavel_rules::UserId;
use gavel_runtime::{Class, Error, Result, auth::Caller};

/// A user from a token or a request.
pub(crate) fn user(given: &str) -> Result<UserId> {
    given.parse().map_err(Error::invalid)
}

/// Whose things a caller asks for: their own where nobody is named; another's only as an operator.
pub(crate) fn own_or_any(named: &str, caller: Option<&Caller>) -> Result<UserId> {
    let caller = caller.ok_or_else(|| Error::new(Class::Unauthenticated, "a bearer token is required"))?;
    match named {
        "" => user(&caller.subject),
        other if other == caller.subject || caller.has_role("ops") => user(other),
        _ => Err(Error::new(Class::Denied, "that is another user; allowed: yourself, or anybody for role ops")),
    }
}

/// A user from our own tables: anything malformed there is our fault.
pub(crate) fn stored_user(stored: &str) -> Result<UserId> {
    stored.parse().map_err(|error: gavel_rules::InvalidUserId| Error::internal(error))
}
