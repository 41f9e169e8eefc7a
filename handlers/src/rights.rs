//! What each program may do with the auction's own tables; the runtime's are in its own list.
//!
//! Bids and what users have spent are only ever added to: no program may change them or take them away.
use gavel_runtime::schema::rights::{Rights, at};

/// A line for each table: what services, workers and operators may do, as SELECT, INSERT, UPDATE and DELETE.
pub const RIGHTS: &[Rights] = &[
    at("items", "SIU", "SU", "S"),
    at("bids", "SI", "S", ""),
    at("user_stats", "S", "SIU", ""),
    at("user_items", "S", "SIU", ""),
    at("spend_ledger", "", "SI", ""),
    // The trigger of change 27 moves it, as whoever writes the bid.
    at("bids_amount_minor_writes", "SU", "S", ""),
    at("rebuilds", "SIU", "SU", "S"),
];
