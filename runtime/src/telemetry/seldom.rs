//! What anybody can cause any number of times is said once a second, with how often it was.
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const SAY_EVERY: Duration = Duration::from_secs(1);

/// Counts what is said seldom.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<(u64, Option<Instant>)>);

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new((0, None)))
    }

    /// One more. Once a second: how many since it was last said.
    pub(crate) fn count(&self) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.0 += 1;
        if counted.1.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return None;
        }
        counted.1 = Some(Instant::now());
        Some(std::mem::take(&mut counted.0))
    }
}
