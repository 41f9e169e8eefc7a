//! Waiting for a condition, never for time.
use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

/// Longer than anything takes on a busy two-core machine; a test that gets there fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Looks again and again until `look` gives what `done` accepts.
///
/// # Panics
/// When that does not happen in time, with what was seen last.
pub async fn eventually<T: Debug, F: Future<Output = T>>(
    what: &str,
    look: impl FnMut() -> F,
    done: impl Fn(&T) -> bool,
) -> T {
    eventually_within(PATIENCE, what, look, done).await
}

/// As [`eventually`], for what has more to do than others.
///
/// # Panics
/// Likewise.
pub(crate) async fn eventually_within<T: Debug, F: Future<Output = T>>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
    done: impl Fn(&T) -> bool,
) -> T {
    let until = Instant::now() + patience;
    loop {
        let seen = look().await;
        if done(&seen) {
            return seen;
        }
        assert!(Instant::now() < until, "{what}: still {seen:?} after {patience:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
