//! Asking processes to stop.
use crate::progress::run_quietly;
use std::{process::Command, time::Duration};

/// A process asked to stop is killed after this long.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);

/// To a process, or with a minus before its id to its whole group.
pub(super) fn signal(signal: &str, target: &str) {
    let _ = run_quietly(Command::new("kill").args([&format!("-{signal}"), "--", target]));
}
