//! A process's half of the conversation.
use super::plan::{Hello, Plan, Position, Reached, Server, Stop};
use anyhow::{Context, bail};
use serde::Serialize;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, OnceLock, PoisonError},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader as AsyncBufReader},
    net::UnixStream as AsyncUnixStream,
};

static CONTROL: OnceLock<Control> = OnceLock::new();

struct Control {
    path: PathBuf,
    plan: Plan,
    hits: Mutex<HashMap<String, u64>>,
}

/// Asks at that socket where this process is to stop. Without this call it never does.
///
/// # Errors
/// When nobody listens there, or says something else.
pub fn arm(path: &Path) -> anyhow::Result<()> {
    let mut listener = UnixStream::connect(path).with_context(|| format!("nobody listens at {}", path.display()))?;
    listener.write_all(&line(&Hello { pid: process::id() })?)?;
    let mut told = String::new();
    BufReader::new(listener).read_line(&mut told)?;
    let plan = serde_json::from_str(&told).with_context(|| format!("{told:?} is no plan"))?;
    let control = Control { path: path.to_owned(), plan, hits: Mutex::default() };
    if CONTROL.set(control).is_err() {
        bail!("boundaries are armed already");
    }
    Ok(())
}

pub(super) fn is_armed() -> bool {
    CONTROL.get().is_some()
}

/// Counts that this process came by.
pub(super) fn hit(site: &str) -> u64 {
    let Some(control) = CONTROL.get() else { return 0 };
    let mut hits = control.hits.lock().unwrap_or_else(PoisonError::into_inner);
    let hit = hits.entry(site.to_owned()).or_default();
    *hit += 1;
    *hit
}

/// Says that it came by for the first time; and waits where it is to stop.
pub(super) async fn stop(server: Server, site: &str, position: Position, hit: u64) {
    let Some(control) = CONTROL.get() else { return };
    let stop = Stop { site: site.to_owned(), position, hit };
    let waits = control.plan.stops.contains(&stop);
    if !waits && hit > 1 {
        return;
    }
    let reached = Reached { pid: process::id(), server, stop, waits };
    // Whoever listened has ended: there is nobody to wait for.
    let _ = say(&control.path, &reached).await;
}

async fn say(path: &Path, reached: &Reached) -> anyhow::Result<()> {
    let mut listener = AsyncUnixStream::connect(path).await?;
    listener.write_all(&line(reached)?).await?;
    if reached.waits {
        AsyncBufReader::new(listener).read_line(&mut String::new()).await?;
    }
    Ok(())
}

fn line(message: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(message)?;
    text.push(b'\n');
    Ok(text)
}
