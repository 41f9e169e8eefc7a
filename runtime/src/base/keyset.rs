//! Pages by key: each begins after the last entry of the one before, and reads no more than itself.
//!
//! A statement that allows for a first page by `$1 IS NULL OR …` may be planned once for all pages, and then reads all
//! entries before its own. So the first page begins after an entry that comes before all others.
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// After everything that is ordered by time and id: where pages begin that show the newest first.
pub const END: (DateTime<Utc>, Uuid) = (LAST, Uuid::max());

/// The year 9999: PostgreSQL and protobuf can both tell it.
const LAST: DateTime<Utc> = match DateTime::from_timestamp(253_402_214_400, 0) {
    Some(last) => last,
    None => DateTime::UNIX_EPOCH,
};
