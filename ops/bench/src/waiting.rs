//! Waiting for what is measured, and no longer than something happens.
use anyhow::{Context, bail};
use std::{
    future::Future,
    time::{Duration, Instant},
};

/// What stands still for so long won't come.
const PATIENCE: Duration = Duration::from_mins(1);
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Looks again and again until so many are there.
///
/// # Errors
/// When for a minute there are no more of them than before; or as `look` fails.
pub(crate) async fn reached<F: Future<Output = anyhow::Result<u64>>>(
    what: &str,
    wanted: u64,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<()> {
    let (mut most, mut since) = (0, Instant::now());
    loop {
        let seen = look().await.with_context(|| format!("while waiting until {what}"))?;
        if seen >= wanted {
            return Ok(());
        }
        if seen > most {
            (most, since) = (seen, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            bail!("waiting until {what}: {most} of {wanted}, and nothing new for {PATIENCE:?}");
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Looks again and again until it is so.
///
/// # Errors
/// When it is not after a minute; or as `is_so` fails.
pub(crate) async fn until<F: Future<Output = anyhow::Result<bool>>>(
    what: &str,
    mut is_so: impl FnMut() -> F,
) -> anyhow::Result<()> {
    reached(what, 1, || {
        let is_so = is_so();
        async move { Ok(u64::from(is_so.await?)) }
    })
    .await
}

/// Gives it no more than a minute.
///
/// # Errors
/// When it takes longer; or its own.
pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.with_context(|| format!("{what} took more than {PATIENCE:?}"))?
}
