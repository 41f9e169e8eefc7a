//! How much is measured: what figures need or, as a smoke test (`SMOKE=1`), just enough to see that everything runs.
use std::{env, sync::LazyLock, time::Duration};

static SMOKE: LazyLock<bool> = LazyLock::new(|| env::var_os("SMOKE").is_some());

/// Of a smoke test's times and counts, this part is left.
const PART: u32 = 20;
const SHORTEST: Duration = Duration::from_millis(200);
const LEAST: u32 = 50;

pub(crate) fn is_smoke() -> bool {
    *SMOKE
}

/// So long, or as short as a smoke test is.
pub(crate) fn time(full: Duration) -> Duration {
    if is_smoke() { (full / PART).max(SHORTEST).min(full) } else { full }
}

/// So many, or as few as a smoke test needs.
pub(crate) fn count(full: u32) -> u32 {
    if is_smoke() { (full / PART / 5).max(LEAST).min(full) } else { full }
}

/// All of these, or the first of them.
pub(crate) fn some<T>(all: &[T]) -> &[T] {
    if is_smoke() { &all[..1.min(all.len())] } else { all }
}
