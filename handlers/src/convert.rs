//! Between the wire's types and ours.
use chrono::{DateTime, Utc};
use gavel_rules::UserId;
use gavel_runtime::{Error, Result};
use prost_types::Timestamp;
use uuid::Uuid;

/// Entries on a page where the request leaves it open.
const DEFAULT_PAGE_SIZE: i32 = 20;
/// Entries on the largest page.
const MAX_PAGE_SIZE: i32 = 100;

pub(crate) fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().try_into().unwrap_or_default() }
}

/// Times are kept in microseconds, as PostgreSQL keeps them.
pub(crate) fn time(field: &str, given: Timestamp) -> Result<DateTime<Utc>> {
    let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let parsed = nanos.and_then(|nanos| DateTime::from_timestamp(given.seconds, nanos / 1_000 * 1_000));
    parsed.ok_or_else(|| Error::invalid(format!("{field} is no point in time: {given:?}; allowed: years 1 to 9999")))
}

pub(crate) fn uuid(field: &str, given: &str) -> Result<Uuid> {
    given.parse().map_err(|_| Error::invalid(format!("{field} {given:?} is not a UUID")))
}

/// A user from a token or a request.
pub(crate) fn user(given: &str) -> Result<UserId> {
    given.parse().map_err(Error::invalid)
}

/// A user from our own tables: anything malformed there is our fault.
pub(crate) fn stored_user(stored: &str) -> Result<UserId> {
    stored.parse().map_err(|error: gavel_rules::InvalidUserId| Error::internal(error))
}

pub(crate) fn page_size(given: i32) -> Result<i64> {
    match given {
        0 => Ok(DEFAULT_PAGE_SIZE.into()),
        1..=MAX_PAGE_SIZE => Ok(given.into()),
        _ => Err(Error::invalid(format!("page_size {given} is out of range; allowed: 1 to {MAX_PAGE_SIZE}"))),
    }
}

/// Cuts a page that was read with one row too many; says what the next page starts after.
pub(crate) fn page<T>(mut rows: Vec<T>, size: i64, token_of: impl Fn(&T) -> String) -> (Vec<T>, String) {
    let size = usize::try_from(size).unwrap_or_default();
    if rows.len() <= size {
        return (rows, String::new());
    }
    rows.truncate(size);
    let token = rows.last().map(token_of).unwrap_or_default();
    (rows, token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_the_calendar_are_named() {
        let error = time("ends_at", Timestamp { seconds: i64::MAX, nanos: 0 }).unwrap_err();
        assert!(error.message().contains("ends_at"));
        assert!(time("ends_at", Timestamp { seconds: 0, nanos: -1 }).is_err());
        let exact = time("ends_at", Timestamp { seconds: 1, nanos: 1_999 }).unwrap();
        assert_eq!(timestamp(exact).nanos, 1_000);
    }

    #[test]
    fn a_page_ends_with_a_token_only_when_there_is_more() {
        assert_eq!(page(vec![3, 2], 2, i32::to_string), (vec![3, 2], String::new()));
        assert_eq!(page(vec![3, 2, 1], 2, i32::to_string), (vec![3, 2], "2".to_owned()));
        assert!(page_size(101).is_err() && page_size(-1).is_err());
        assert_eq!(page_size(0).unwrap(), 20);
    }
}
