//! What lanes of `Tx` jobs and the fetchers of `Io` jobs have in common: a turn, and what it waits for.
use std::time::Duration;

/// A statement on the queue that takes longer finds the database gone.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a broken database is left alone.
pub(super) const BROKEN: Duration = Duration::from_secs(1);
/// Time to wait when all slots across processes are taken.
pub(super) const FULL: Duration = Duration::from_millis(50);
/// Jobs of larger claims get no span and no metrics of their own.
pub(super) const SPANS: usize = 16;

/// The outcome of a turn.
pub(super) enum Turn {
    Ran,
    Idle,
    Wait(Duration),
}
