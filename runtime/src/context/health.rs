//! Is this process alive, and may it be sent work? Each dependency is named, and what a process can do without says so.
use crate::base::tasks::Tasks;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// The answer to `/readyz`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Readiness {
    /// True if this process should be sent work.
    pub(crate) ready: bool,
    /// It has been told to stop.
    pub(crate) draining: bool,
    pub(crate) database: Check,
    pub(crate) schema: Check,
    pub(crate) broker: Check,
    pub(crate) cache: Check,
    /// The keys that tokens are checked with; none in a process that takes no calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<Check>,
}

/// One dependency. What is wrong is said in words of our own: anybody may read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) up: bool,
    /// Not ready without it.
    pub(crate) required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl Check {
    pub(crate) fn new(required: bool, problem: Option<String>) -> Self {
        Self { up: problem.is_none(), required, problem }
    }

    pub(crate) fn permits(&self) -> bool {
        self.up || !self.required
    }
}

/// What was found last.
#[derive(Default)]
pub(crate) struct Health(Mutex<Option<Readiness>>);

impl Health {
    /// None before the first look.
    pub(crate) fn readiness(&self) -> Option<Readiness> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, readiness: Readiness) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(readiness);
    }
}

impl Readiness {
    /// The same, but for a drain that has begun since.
    pub(crate) fn unless_draining(self, tasks: &Tasks) -> Self {
        let draining = tasks.draining().is_cancelled();
        Self { ready: self.ready && !draining, draining, ..self }
    }

    /// Each dependency by its name.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (&'static str, &Check)> {
        let named =
            [("database", &self.database), ("schema", &self.schema), ("broker", &self.broker), ("cache", &self.cache)];
        named.into_iter().chain(self.keys.iter().map(|keys| ("keys", keys)))
    }

    /// Says what has changed.
    pub(crate) fn report(&self, before: Option<&Self>) {
        let before = |name| before.and_then(|before| before.checks().find(|(known, _)| *known == name));
        for (dependency, check) in self.checks() {
            let was_up = before(dependency).is_none_or(|(_, check)| check.up);
            match (&check.problem, was_up) {
                (Some(problem), true) => tracing::warn!(dependency, problem, "a dependency is down"),
                (None, false) => tracing::info!(dependency, "a dependency is up again"),
                _ => {}
            }
        }
    }
}
