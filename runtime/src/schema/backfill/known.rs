//! Which changes have something to fill.
use crate::{
    Error, Result, Tx,
    changes::{Backfill, Change},
};

/// The engine, as the author of what it does by itself.
pub(crate) const ENGINE: &str = "engine";

/// Returns whether this program knows the change at all: one of an older version does not.
pub(super) fn is_known(tx: &Tx, number: i64) -> bool {
    number <= tx.evolution().history().newest()
}

/// The change of that number, with its backfill.
///
/// # Errors
/// [`Class::NotFound`](crate::Class::NotFound), naming those that there are.
pub(super) fn backfill_of(tx: &Tx, number: i64) -> Result<(Change, Backfill)> {
    let history = tx.evolution().history();
    let found = history.get(number).and_then(|change| Some((change.clone(), change.backfill.clone()?)));
    found.ok_or_else(|| {
        let names = history.iter().filter(|change| change.backfill.is_some()).map(|change| change.name.as_str());
        let names: Vec<_> = names.collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let newest = history.newest();
        if number > newest {
            let message = format!("change {number} is newer than this program, which knows them up to {newest}");
            return Error::not_found(message);
        }
        Error::not_found(format!("change {number} has no backfill; there are: {names}"))
    })
}
