//! Between what is on the wire and what handlers work with: times, ids, pages. What can't be read is refused by its
//! field's name.
use crate::{Error, Result};
use chrono::{DateTime, Datelike, Utc};
use prost_types::Timestamp;
use std::{fmt, ops::RangeInclusive};
use uuid::Uuid;

/// Entries on a page where the request leaves it open.
const DEFAULT_PAGE_SIZE: i32 = 20;
/// Of the times that requests may name.
const YEARS: RangeInclusive<i32> = 1..=9_999;
/// Entries on the largest page.
const MAX_PAGE_SIZE: i32 = 100;

/// A point in time as a message has it.
pub fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().try_into().unwrap_or_default() }
}

/// A point in time from a message, in microseconds, as PostgreSQL keeps them.
///
/// # Errors
/// When there is none such, or not in the years 1 to 9999.
pub fn time(field: &str, given: Timestamp) -> Result<DateTime<Utc>> {
    let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let parsed = nanos.and_then(|nanos| DateTime::from_timestamp(given.seconds, nanos / 1_000 * 1_000));
    let Timestamp { seconds, nanos } = given;
    let refuse = || format!("{field} is no point in time: {seconds} s and {nanos} ns; allowed: years 1 to 9999");
    parsed.filter(|at| YEARS.contains(&at.year())).ok_or_else(|| Error::invalid(refuse()))
}

/// A duration, in microseconds.
///
/// # Errors
/// When it is negative, or too long to be counted.
pub fn micros(field: &str, given: &prost_types::Duration) -> Result<i64> {
    let whole =
        given.seconds.checked_mul(1_000_000).and_then(|micros| micros.checked_add(i64::from(given.nanos / 1_000)));
    let refuse = || Error::invalid(format!("{field} is {} s and {} ns; allowed: from 0", given.seconds, given.nanos));
    whole.filter(|_| given.seconds >= 0 && (0..1_000_000_000).contains(&given.nanos)).ok_or_else(refuse)
}

/// An id, however it is spelled.
///
/// # Errors
/// When it is no UUID.
pub fn uuid(field: &str, given: &str) -> Result<Uuid> {
    given.parse().map_err(|_| Error::invalid(format!("{field} {given:?} is not a UUID")))
}

/// Ids on the wire.
pub fn texts(ids: &[Uuid]) -> Vec<String> {
    ids.iter().map(Uuid::to_string).collect()
}

/// A number that counts something.
///
/// # Errors
/// When it is negative.
pub fn whole_number(field: &str, given: i64) -> Result<i64> {
    let refuse = || Error::invalid(format!("{field} is {given}; allowed: from 0"));
    (given >= 0).then_some(given).ok_or_else(refuse)
}

/// Returns how many entries a page is to have; a usual page where 0.
///
/// # Errors
/// When that is negative, or more than a page has.
pub fn page_size(given: i32) -> Result<i64> {
    at_most("page_size", given)
}

/// Returns how many entries are wanted; as many as on a usual page where 0.
///
/// # Errors
/// When that is negative, or more than a page has.
pub fn at_most(field: &str, given: i32) -> Result<i64> {
    match given {
        0 => Ok(DEFAULT_PAGE_SIZE.into()),
        1..=MAX_PAGE_SIZE => Ok(given.into()),
        _ => Err(Error::invalid(format!("{field} {given} is out of range; allowed: 1 to {MAX_PAGE_SIZE}"))),
    }
}

/// Cuts a page that was read with one row too many; says what the next page starts after.
pub fn page<T>(mut rows: Vec<T>, size: i64, token_of: impl Fn(&T) -> String) -> (Vec<T>, String) {
    let size = usize::try_from(size).unwrap_or_default();
    if rows.len() <= size {
        return (rows, String::new());
    }
    rows.truncate(size);
    let token = rows.last().map(token_of).unwrap_or_default();
    (rows, token)
}

/// Where a page ends that is ordered by time, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageKey {
    /// When.
    pub at: DateTime<Utc>,
    /// Which of those of that time.
    pub id: Uuid,
}

impl fmt::Display for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.at.timestamp_micros(), self.id)
    }
}

/// The end of the page before; none where the first page is asked for.
///
/// # Errors
/// When no page gave such a token.
pub fn page_key(token: &str) -> Result<Option<PageKey>> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = token.split_once('_').and_then(|(micros, id)| {
        let at = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
        // What PostgreSQL has no time for is no key of a page either.
        Some(PageKey { at, id: id.parse().ok()? }).filter(|_| YEARS.contains(&at.year()))
    });
    let refuse = || Error::invalid(format!("page_token {token:?} is not one that an earlier page gave"));
    parsed.map(Some).ok_or_else(refuse)
}

/// Either ids or a name, exactly one of them.
///
/// # Errors
/// When both are given, or none, or more than `most` ids.
pub fn selection<S>(
    (ids_field, ids): (&str, &[String]),
    (name_field, name): (&str, String),
    most: i64,
    by_ids: impl Fn(Vec<Uuid>) -> S,
    by_name: impl Fn(String) -> S,
) -> Result<S> {
    match (ids.is_empty(), name.is_empty()) {
        (true, false) => Ok(by_name(name)),
        (false, true) if i64::try_from(ids.len()).is_ok_and(|count| count <= most) => {
            let mut ids = ids.iter().map(|id| uuid(ids_field, id)).collect::<Result<Vec<_>>>()?;
            // The same ids are the same selection.
            ids.sort_unstable();
            ids.dedup();
            Ok(by_ids(ids))
        }
        (false, true) => Err(Error::invalid(format!("{} {ids_field} are too many; allowed: 1 to {most}", ids.len()))),
        _ => Err(Error::invalid(format!("which ones? allowed: either {ids_field} or {name_field}"))),
    }
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
    fn a_page_token_leads_back_to_its_place() {
        let key = PageKey { at: DateTime::from_timestamp_micros(1_234_567_890_123).unwrap(), id: Uuid::from_u128(7) };
        assert_eq!(page_key(&key.to_string()).unwrap(), Some(key));
        assert_eq!(page_key("").unwrap(), None);
        assert!(page_key("7").is_err());
        assert!(page_key(&format!("-1000000000000000000_{}", Uuid::nil())).is_err(), "before PostgreSQL's calendar");
    }

    #[test]
    fn a_selection_is_either_ids_or_a_name() {
        let select = |ids: &[String], name: &str| {
            selection(("ids", ids), ("name", name.to_owned()), 2, |ids| ids.len(), |_| 99).map_err(|e| e.to_string())
        };
        let id = Uuid::from_u128(7).to_string();
        assert_eq!(select(std::slice::from_ref(&id), ""), Ok(1));
        assert_eq!(select(&[], "a"), Ok(99));
        assert!(select(&[], "").is_err() && select(std::slice::from_ref(&id), "a").is_err());
        assert!(select(&[id.clone(), id.clone(), id], "").unwrap_err().contains("1 to 2"));
        assert!(select(&["x".to_owned()], "").unwrap_err().contains("ids \"x\""));
    }

    #[test]
    fn a_page_ends_with_a_token_only_when_there_is_more() {
        assert_eq!(page(vec![3, 2], 2, i32::to_string), (vec![3, 2], String::new()));
        assert_eq!(page(vec![3, 2, 1], 2, i32::to_string), (vec![3, 2], "2".to_owned()));
        assert!(page_size(101).is_err() && page_size(-1).is_err());
        assert_eq!(page_size(0).unwrap(), 20);
    }
}
