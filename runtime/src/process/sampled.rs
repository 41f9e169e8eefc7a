//! What gauges show between two looks at the database.
use std::sync::{Arc, Mutex, PoisonError};

/// What the last look found. None where it failed: an error must not look like nothing.
#[derive(Debug)]
pub(super) struct Sampled<T>(Arc<Mutex<Option<Vec<T>>>>);

impl<T> Clone for Sampled<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Sampled<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Sampled<T> {
    pub(super) fn set(&self, found: Option<Vec<T>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    pub(super) fn each(&self, mut see: impl FnMut(&T)) {
        if let Some(found) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            found.iter().for_each(&mut see);
        }
    }
}
