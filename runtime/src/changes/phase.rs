//! How far each change has come, as this process knows it.
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

/// How far a change has come. Each phase lasts until the next: what a program may rely on only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Both forms are there; rows written before may lack the new one.
    Expanded,
    /// Both are there, and every row has the new one: programs read it alone from now on.
    Filled,
    /// The old form is out of reach, and could still be brought back.
    Contracted,
    /// The old form is gone.
    Dropped,
}

impl Phase {
    /// The phase's name, as operators see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expanded => "expanded",
            Self::Filled => "filled",
            Self::Contracted => "contracted",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// All phases at one moment. The epoch grows whenever one of them changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) epoch: i64,
    pub(crate) by_change: BTreeMap<i64, Phase>,
}

/// The phases that this process goes by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phases(Arc<RwLock<Known>>);

impl Phases {
    /// Returns how far that change has come: only expanded, where nothing is known.
    pub(crate) fn of(&self, change: i64) -> Phase {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.by_change.get(&change).copied().unwrap_or(Phase::Expanded)
    }

    /// The epoch of what it goes by.
    pub(crate) fn epoch(&self) -> i64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).epoch
    }

    /// Goes by these from now on; true where something is new.
    pub(crate) fn adopt(&self, known: Known) -> bool {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = *held != known;
        *held = known;
        is_new
    }
}
