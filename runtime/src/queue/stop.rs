//! How the handler of a claimed job is asked to stop, and why.
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio_util::sync::CancellationToken;

/// One attempt's. Clones are of the same attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    asked: CancellationToken,
    lost: Arc<AtomicBool>,
}

impl Stop {
    /// Somebody does not want the job any more.
    pub(crate) fn cancel(&self) {
        self.asked.cancel();
    }

    /// Another attempt has the job: its lease ran out, or the transaction that held it is gone.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.asked.cancel();
    }

    /// Tripped when the handler is to stop.
    pub(crate) fn asked(&self) -> &CancellationToken {
        &self.asked
    }

    /// Returns whether what this attempt came to is nobody's business any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lost, &other.lost)
    }
}
