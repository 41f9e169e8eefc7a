//! What is going on, and how long it took.
use anyhow::{Context, bail};
use std::{
    env,
    fmt::Display,
    mem,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A step that may take a while.
pub(crate) struct Step {
    began: Instant,
}

impl Step {
    /// Says that it begins.
    pub(crate) fn begin(what: impl Display) -> Self {
        eprintln!("  … {what}");
        Self { began: Instant::now() }
    }

    /// Says what came of it.
    pub(crate) fn done(self, what: impl Display) {
        let took = self.began.elapsed();
        eprintln!("  ✓ {what} ({:.1} s)", took.as_secs_f64());
        DONE.lock().unwrap_or_else(PoisonError::into_inner).push((what.to_string(), took));
    }
}

static DONE: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());

/// What has come of steps since this was asked last, and how long each took.
pub(crate) fn done_since() -> Vec<(String, Duration)> {
    mem::take(&mut DONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs a command to its end, its output shown.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = shown(command);
    let status = unaware_of_us(command).status().with_context(|| format!("can't run {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// Runs a command to its end; its output is shown only when it fails.
pub(crate) fn run_quietly(command: &mut Command) -> anyhow::Result<String> {
    let shown = shown(command);
    let output = unaware_of_us(command).stdin(Stdio::null()).output().with_context(|| format!("can't run {shown}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("{shown} failed: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// Without what `cargo run` told us of this package: build scripts that look at it would run again, and all that
/// depends on them.
pub(crate) fn unaware_of_us(command: &mut Command) -> &mut Command {
    let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    for (name, _) in env::vars_os() {
        if ours.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

fn shown(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    let program = command.get_program().to_string_lossy();
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Waits until `ready` says so. `alive` may end the wait early with what went wrong.
pub(crate) fn wait_until(
    what: &str,
    patience: Duration,
    mut alive: impl FnMut() -> anyhow::Result<()>,
    mut ready: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    while !ready() {
        alive()?;
        if Instant::now() > until {
            bail!("{what} is not ready after {patience:?}");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
