//! What can be seen of the keys from outside: how many there are, and how old.
use std::{
    sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// What can be seen of the keys from outside.
pub(crate) struct KeyFigures {
    born: Instant,
    /// When they were last read, in milliseconds after `born`.
    read_at_ms: AtomicI64,
    usable: AtomicUsize,
    ignored: AtomicUsize,
}

impl Default for KeyFigures {
    fn default() -> Self {
        let (usable, ignored) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { born: Instant::now(), read_at_ms: AtomicI64::new(0), usable, ignored }
    }
}

impl KeyFigures {
    /// The keys were read so long ago.
    pub(crate) fn are_of(&self, age: Duration) {
        self.read_at_ms.store(millis(self.born.elapsed()).saturating_sub(millis(age)), Relaxed);
    }

    /// So many can be used.
    pub(crate) fn usable(&self, count: usize) {
        self.usable.store(count, Relaxed);
    }

    /// So many were passed over.
    pub(crate) fn ignored(&self, count: usize) {
        self.ignored.store(count, Relaxed);
    }

    /// Returns how long ago the keys were read.
    pub(crate) fn age(&self) -> Duration {
        let age_ms = millis(self.born.elapsed()).saturating_sub(self.read_at_ms.load(Relaxed));
        Duration::from_millis(u64::try_from(age_ms).unwrap_or_default())
    }

    /// Returns how many there are, and how many were passed over.
    pub(crate) fn counts(&self) -> [usize; 2] {
        [self.usable.load(Relaxed), self.ignored.load(Relaxed)]
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
