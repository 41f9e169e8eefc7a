//! The schema's changes that the programs go by while they last.
use gavel_rules::{BID_CEILING_MINOR, MAX_AMOUNT_MINOR};
use gavel_runtime::{
    Io, Tx,
    changes::{Phase, Sources},
};
use sqlx::migrate::Migrator;

/// What a running version needs of the schema.
pub static EXPAND: Migrator = sqlx::migrate!("../migrations/expand");
static BACKFILL: Migrator = sqlx::migrate!("../migrations/backfill");
static CONTRACT: Migrator = sqlx::migrate!("../migrations/contract");
static DROP: Migrator = sqlx::migrate!("../migrations/drop");

/// All files of all changes.
pub const SOURCES: Sources = Sources { expand: &EXPAND, backfill: &BACKFILL, contract: &CONTRACT, drop: &DROP };

/// The programs whose sessions, where nobody has written them down, are of a version that knew nothing of changes.
pub const PROGRAMS: &[&str] = &["bid-service", "bid-worker"];

/// `bids.amount_minor` integer → `bids.max_amount_minor` bigint.
pub const WIDE_BID_AMOUNTS: i64 = 27;
/// `user_stats.items_bid_on`.
pub const ITEMS_BID_ON: i64 = 28;

/// Whatever knows how far changes have come.
pub trait Phases {
    /// The phase of the change of that number.
    fn phase_of(&self, change: i64) -> Phase;
}

impl Phases for Tx {
    fn phase_of(&self, change: i64) -> Phase {
        self.phase(change)
    }
}

impl Phases for Io {
    fn phase_of(&self, change: i64) -> Phase {
        self.phase(change)
    }
}

/// The highest bid that is taken, in minor units. Until the narrow column is dropped it can still be brought back, and
/// a larger bid would be lost by that.
pub fn bid_ceiling_minor(phases: &impl Phases) -> i64 {
    match phases.phase_of(WIDE_BID_AMOUNTS) {
        Phase::Dropped => MAX_AMOUNT_MINOR,
        Phase::Expanded | Phase::Filled | Phase::Contracted => BID_CEILING_MINOR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_runtime::changes::History;

    #[test]
    fn the_files_belong_together() {
        let history = History::read(SOURCES).expect("a history");
        let of = |number| history.get(number).expect("a change");
        assert!(of(WIDE_BID_AMOUNTS).name.ends_with("widen_bid_amounts") && of(WIDE_BID_AMOUNTS).drop.is_some());
        assert!(of(ITEMS_BID_ON).name.ends_with("count_items_bid_on") && of(ITEMS_BID_ON).backfill.is_some());
    }
}
