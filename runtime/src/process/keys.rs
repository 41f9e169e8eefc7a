//! Reading the keys again while the process runs, so that they can be rotated: the new one is added, tokens are signed
//! with it, the old one is taken away.
//!
//! What can't be read leaves the keys that are known, for as long as keys may be old. A document from a URL is also
//! kept in the database, so that a process can start while the server of keys is down.
use crate::{
    Pool, Result, Runtime,
    auth::{self, Verifier},
    config::KeySource,
};
use std::time::Duration;

/// Keys are read again so often.
const READ_EVERY: Duration = Duration::from_mins(1);
/// And no more often, when tokens name keys that are not known.
const PAUSE: Duration = Duration::from_secs(5);
/// A document that has not changed is noted as read this often.
const NOTE_EVERY: Duration = Duration::from_mins(10);

/// Reads the keys for the first time; from the database's copy, where they are at a URL that does not answer.
///
/// # Errors
/// When there are none to be had: what is wrong with the source.
pub(crate) async fn read_at_start(runtime: &Runtime, source: &KeySource) -> anyhow::Result<()> {
    let Some(verifier) = runtime.verifier() else { return Ok(()) };
    let Err(error) = read(runtime, source, verifier, &mut Last::default()).await else { return Ok(()) };
    let Some(url) = source.url() else { return Err(error) };
    let Ok(Some((text, age))) = copy(&runtime.pools().bookkeeping, url).await else { return Err(error) };
    if age > verifier.max_age() {
        return Err(
            error.context(format!("the copy in the database is {age:?} old; allowed: {:?}", verifier.max_age()))
        );
    }
    let error = format!("{error:#}");
    tracing::warn!(error, age_s = age.as_secs(), "the keys that tokens are checked with are those of the last time");
    take(source, verifier, source.parse(&text)?, age);
    Ok(())
}

/// Reads the keys again and again, until the drain.
pub(crate) async fn refresh(runtime: Runtime, source: KeySource) {
    let Some(verifier) = runtime.verifier().filter(|_| source.may_change()) else { return };
    let (missed, mut last) = (verifier.missed.clone(), Last::default());
    loop {
        if let Err(error) = read(&runtime, &source, verifier, &mut last).await {
            let (error, age_s) = (format!("{error:#}"), verifier.figures().age().as_secs());
            tracing::warn!(
                error,
                age_s,
                "the keys that tokens are checked with can't be read; the old ones stay for now"
            );
        }
        if !runtime.tasks().pause(PAUSE).await {
            return;
        }
        tokio::select! {
            () = runtime.tasks().draining().cancelled() => return,
            () = missed.notified() => {}
            () = tokio::time::sleep(READ_EVERY) => {}
        }
    }
}

/// What was read last.
#[derive(Default)]
struct Last {
    text: Option<String>,
    noted: Option<std::time::Instant>,
}

async fn read(runtime: &Runtime, source: &KeySource, verifier: &Verifier, last: &mut Last) -> anyhow::Result<()> {
    let text = source.text().await?;
    let has_changed = last.text.as_ref() != Some(&text);
    if has_changed {
        take(source, verifier, source.parse(&text)?, Duration::ZERO);
    } else {
        verifier.figures().are_of(Duration::ZERO);
    }
    if let Some(url) = source.url()
        && (has_changed || last.noted.is_none_or(|noted| noted.elapsed() > NOTE_EVERY))
    {
        match keep(&runtime.pools().bookkeeping, url, &text).await {
            Ok(()) => last.noted = Some(std::time::Instant::now()),
            Err(error) => tracing::warn!(%error, "the keys can't be kept in the database"),
        }
    }
    last.text = Some(text);
    Ok(())
}

fn take(source: &KeySource, verifier: &Verifier, read: auth::Read, age: Duration) {
    for ignored in &read.ignored {
        tracing::warn!(ignored, from = %source, "a key is passed over");
    }
    if read.keys.is_empty() {
        tracing::warn!(from = %source, "there is no key that tokens could be checked with: all are refused");
    }
    tracing::info!(keys = read.keys.len(), from = %source, "the keys that tokens are checked with were read");
    verifier.figures().ignored(read.ignored.len());
    verifier.figures().are_of(age);
    verifier.replace(read.keys);
}

/// The document that was last read from there, and how long ago that was.
async fn copy(pool: &Pool, url: &str) -> Result<Option<(String, Duration)>> {
    let row = sqlx::query!(
        r#"SELECT document, extract(epoch FROM clock_timestamp() - read_at)::float8 AS "age_s!"
           FROM key_documents WHERE url = $1"#,
        url,
    );
    let row = row.fetch_optional(pool).await?;
    Ok(row.map(|row| (row.document, Duration::try_from_secs_f64(row.age_s).unwrap_or_default())))
}

async fn keep(pool: &Pool, url: &str, document: &str) -> Result<()> {
    sqlx::query!(
        "INSERT INTO key_documents (url, document) VALUES ($1, $2)
         ON CONFLICT (url) DO UPDATE SET document = excluded.document, read_at = clock_timestamp()",
        url,
        document,
    )
    .execute(pool)
    .await?;
    Ok(())
}
