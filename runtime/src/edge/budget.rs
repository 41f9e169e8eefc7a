//! What the bodies of requests may take: how long each, and how much all of them together.
use crate::{Class, Error, context::admission::BUSY};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// Limits of one process, shared by its connections.
#[derive(Clone)]
pub(crate) struct BodyLimits {
    /// From the headers to the end of the body.
    pub(super) time: Duration,
    pub(super) budget: Arc<Budget>,
}

impl BodyLimits {
    pub(crate) fn new(time: Duration, bytes: usize) -> Self {
        Self { time, budget: Arc::new(Budget { bytes, held: AtomicUsize::new(0) }) }
    }
}

/// The bytes of bodies that are held at the same time.
pub(super) struct Budget {
    bytes: usize,
    held: AtomicUsize,
}

impl Budget {
    /// Holds so many more. False where they would be too many: then none are.
    pub(super) fn hold(&self, bytes: usize) -> bool {
        let fits = |held: usize| Some(held + bytes).filter(|sum| *sum <= self.bytes);
        self.held.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    pub(super) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }
}

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    TooSlow,
    NoRoom,
}

impl Cut {
    /// Returns what its client is told.
    pub(super) fn error(self, limits: &BodyLimits) -> Error {
        match self {
            Self::TooSlow => {
                let message = format!("the request did not arrive within {:?}", limits.time);
                Error::new(Class::DeadlineExceeded, message)
            }
            Self::NoRoom => {
                let message = "requests that are on their way take all the room there is; try again";
                Error::new(Class::Exhausted, message).with_retry_after(BUSY)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let BodyLimits { budget, .. } = BodyLimits::new(Duration::ZERO, 100);
        assert!(budget.hold(60));
        assert!(!budget.hold(41));
        assert!(budget.hold(40));
        budget.release(60);
        assert!(budget.hold(60) && !budget.hold(1));
    }
}
