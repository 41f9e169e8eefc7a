//! An application's changes, and how far they have come, for every transaction of a process.
use super::{History, Phase, Phases};
use std::sync::Arc;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evolution(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    history: History,
    /// Programs whose sessions, where nobody has written them down, are of a version that knew nothing of this.
    programs: &'static [&'static str],
    phases: Phases,
}

impl Evolution {
    pub(crate) fn new(history: History, programs: &'static [&'static str]) -> Self {
        Self(Arc::new(Inner { history, programs, phases: Phases::default() }))
    }

    pub(crate) fn history(&self) -> &History {
        &self.0.history
    }

    pub(crate) fn programs(&self) -> &'static [&'static str] {
        self.0.programs
    }

    /// Those that this process goes by.
    pub(crate) fn phases(&self) -> &Phases {
        &self.0.phases
    }

    /// True where the application has changes: then processes must be known, also to programs of later releases, whose
    /// changes may last longer than any that this one knows.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.history.iter().next().is_some()
    }

    pub(crate) fn phase(&self, change: i64) -> Phase {
        self.0.phases.of(change)
    }
}
