//! Waiting for a database when a process starts: what can't be looked at yet says nothing, and is looked at again.
use anyhow::bail;
use std::time::{Duration, Instant};

/// In a fresh deployment everything starts at once.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(300);

/// Returns what the look finds, once it can be taken.
///
/// # Errors
/// Why it could not be, for as long as a process waits for its database.
pub(crate) async fn patiently<T>(mut look: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        let problem = match look().await {
            Ok(found) => return Ok(found),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > until {
            bail!("the database can't be used (DATABASE_URL): {problem}");
        }
        tracing::warn!(problem, "waiting for the database");
        tokio::time::sleep(PAUSE).await;
    }
}
