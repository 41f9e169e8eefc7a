//! How many of something each of many may have at the same time: connections of an address, streams of a caller.
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What each has. Those that have nothing are not remembered. Cheap to clone.
pub(crate) struct ConcurrencyLimit<K>(Arc<Mutex<HashMap<K, u32>>>);

/// One of what somebody has, given back when this is dropped.
pub(crate) struct Taken<K: Eq + Hash> {
    by: K,
    of: ConcurrencyLimit<K>,
}

impl<K> Clone for ConcurrencyLimit<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for ConcurrencyLimit<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> ConcurrencyLimit<K> {
    fn counts(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> ConcurrencyLimit<K> {
    /// One more, where there are fewer than `most`; any number where `most` is 0.
    ///
    /// # Errors
    /// How many there are.
    pub(crate) fn take(&self, by: K, most: u32) -> Result<Taken<K>, u32> {
        let mut counts = self.counts();
        let count = counts.get(&by).copied().unwrap_or_default();
        if most > 0 && count >= most {
            return Err(count);
        }
        counts.insert(by.clone(), count + 1);
        drop(counts);
        Ok(Taken { by, of: self.clone() })
    }
}

impl<K: Eq + Hash> Drop for Taken<K> {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        if let Some(count) = counts.get_mut(&self.by) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_what_is_given_back_is_forgotten() {
        let limit = ConcurrencyLimit::default();
        let (first, _second) = (limit.take("ann", 2).unwrap(), limit.take("ann", 2).unwrap());
        assert_eq!(limit.take("ann", 2).err(), Some(2));
        assert!(limit.take("bob", 2).is_ok(), "and gives it back at once");
        drop(first);
        let unlimited: Vec<_> = (0..9).map(|_| limit.take("ann", 0).unwrap()).collect();
        assert_eq!(limit.take("ann", 2).err(), Some(10));
        drop(unlimited);
        assert_eq!(limit.counts().iter().collect::<Vec<_>>(), [(&"ann", &1)]);
    }
}
