//! How many of something there are at the moment.
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

/// Something of which there are so many at the moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Held(Arc<AtomicI64>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct One(Arc<AtomicI64>);

impl Held {
    /// One more.
    pub(crate) fn take(&self) -> One {
        self.0.fetch_add(1, Relaxed);
        One(self.0.clone())
    }

    pub(crate) fn count(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_until_it_is_dropped() {
        let held = Held::default();
        let (one, _other) = (held.take(), held.take());
        assert_eq!(held.count(), 2);
        drop(one);
        assert_eq!(held.count(), 1);
    }
}
