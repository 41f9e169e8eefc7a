//! What anybody can cause any number of times is said now and then, with how often it was.
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Counts what is said seldom.
#[derive(Debug)]
pub(crate) struct Seldom {
    every: Duration,
    /// Number of times since it was last said, and when that was.
    counted: Mutex<(u64, Option<Instant>)>,
}

impl Seldom {
    /// Once a second.
    pub(crate) const fn new() -> Self {
        Self::every(Duration::from_secs(1))
    }

    pub(crate) const fn every(every: Duration) -> Self {
        Self { every, counted: Mutex::new((0, None)) }
    }

    /// One more. Where it is to be said now: how many since it was last.
    pub(crate) fn count(&self) -> Option<u64> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.0 += 1;
        if counted.1.is_some_and(|said| said.elapsed() < self.every) {
            return None;
        }
        counted.1 = Some(Instant::now());
        Some(std::mem::take(&mut counted.0))
    }
}
