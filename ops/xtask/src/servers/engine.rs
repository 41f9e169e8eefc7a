//! The Docker engine.
use std::{env, process::Command};

/// Which image to run, as `name:tag`: from the environment, or the default.
pub(crate) fn image(variable: &str, default: &str) -> String {
    env::var(variable).ok().filter(|image| !image.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// Returns whether a Docker engine answers.
pub(crate) fn engine_answers() -> bool {
    Command::new("docker").arg("info").output().is_ok_and(|output| output.status.success())
}
