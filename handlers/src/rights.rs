//! What each program may do with the auction's own tables; the runtime's are in its own list.
//!
//! Bids and what users have spent are only ever added to: no program may change them or take them away.
use gavel_accounts::postgres::Role;
use gavel_runtime::{
    schema::rights::{Rights, at},
    spec::Spec,
};

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

/// As whom a handler runs: what it is called by says in which program, and its [`Spec`] whether that must be one that is
/// started for it by name, as the owner of the tables.
pub const fn role_of(spec: &Spec) -> Role {
    match (spec.trigger.is_workers(), spec.only_when_named) {
        (false, _) => Role::Service,
        (true, false) => Role::Worker,
        (true, true) => Role::Migrator,
    }
}
