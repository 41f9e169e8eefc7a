//! Values that are looked up often and made once.
use foldhash::fast::RandomState;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, PoisonError, RwLock},
};

/// A map for look-ups on the way of each call, whose keys are this program's own: nobody outside chooses what goes in.
pub(crate) type OwnKeys<K, V> = HashMap<K, V, RandomState>;

/// What is made once for each key.
pub(crate) struct Memo<K, V>(RwLock<OwnKeys<K, Arc<V>>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Hash + Eq, V> Memo<K, V> {
    /// The value of a key, made where it is asked for the first time.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(|| Arc::new(make())).clone()
    }
}
