//! Keeps this process written down beside the schema, and learns how far changes have come: over a session of its own,
//! which no busy pool can starve.
use crate::{
    Conn, Runtime,
    base::seldom::Seldom,
    postgres::{self, Purpose},
    schema::{Beat, contracted_above, phases, sample_meters},
};
use anyhow::{Context, bail};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Interval at which it is seen.
const EVERY: Duration = Duration::from_secs(2);
/// A look that takes longer is given up.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which it is said that it can't be.
const SAID_EVERY: Duration = Duration::from_mins(1);
/// After this no transaction goes by the phases of before any more: longer than any call may take.
const ADOPTED_AFTER: Duration = Duration::from_secs(10);

/// Writes the process down before it does anything, or refuses to start.
pub(super) async fn register(runtime: &Runtime) -> anyhow::Result<()> {
    let evolution = &runtime.pools().evolution;
    if !evolution.is_watched() {
        return Ok(());
    }
    let registered = postgres::patiently(async || {
        let mut conn = runtime.pools().connector.connect("presence", Purpose::Work).await?;
        let registered = runtime.presence().register(&mut conn, evolution.history()).await;
        conn.close().await.ok();
        registered.context("can't write the process down")
    });
    match registered.await? {
        Ok(known) => drop(evolution.phases().adopt(known)),
        Err(gone) => {
            bail!("the schema's form that this program needs is gone, by {}: start a newer version", gone.join(", "))
        }
    }
    Ok(())
}

/// Says so until the drain. Trips `is_gone` where the schema's form that this program needs is gone.
pub(super) async fn run(runtime: Runtime, is_gone: CancellationToken) {
    if !runtime.pools().evolution.is_watched() {
        return;
    }
    let epoch = runtime.pools().evolution.phases().epoch();
    let mut keeping = Keeping { conn: None, epoch, adopted: None };
    let said = Seldom::every(SAID_EVERY);
    while runtime.tasks().pause(EVERY).await {
        let look = tokio::time::timeout(TIMEOUT, keeping.look(&runtime)).await;
        let error = match look {
            Ok(Ok(gone)) if gone.is_empty() => continue,
            Ok(Ok(gone)) => {
                tracing::error!(by = gone.join(", "), "the schema's form that this program needs is gone: it ends");
                return is_gone.cancel();
            }
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("the database takes long to answer"),
        };
        keeping.conn = None;
        if said.count().is_some() {
            tracing::warn!(error = format!("{error:#}"), "the process can't be kept written down beside the schema");
        }
    }
}

/// Says that it has ended.
pub(super) async fn leave(runtime: &Runtime) {
    if !runtime.pools().evolution.is_watched() {
        return;
    }
    let leaving = async {
        let mut conn = runtime.pools().connector.connect("presence", Purpose::Work).await?;
        runtime.presence().leave(&mut conn).await?;
        conn.close().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(EVERY, leaving).await {
        tracing::debug!(%error, "nobody was told of the end; it will be noticed");
    }
}

struct Keeping {
    conn: Option<Conn>,
    /// What all transactions go by.
    epoch: i64,
    /// What new ones go by, since when.
    adopted: Option<(i64, Instant)>,
}

impl Keeping {
    /// Gives what has taken away the form that this program needs, though it was alive: it was out of reach for long.
    async fn look(&mut self, runtime: &Runtime) -> anyhow::Result<Vec<String>> {
        let evolution = &runtime.pools().evolution;
        if self.conn.is_none() {
            self.conn = Some(runtime.pools().connector.connect("presence", Purpose::Work).await?);
        }
        let Some(conn) = &mut self.conn else { return Ok(Vec::new()) };
        let gone = contracted_above(conn, evolution.history().newest()).await?;
        if !gone.is_empty() {
            return Ok(gone);
        }
        let known = phases(conn, evolution.history()).await?;
        let epoch = known.epoch;
        if evolution.phases().adopt(known) {
            tracing::info!(epoch, "a change of the schema has come further");
        }
        let (adopted, since) = *self.adopted.insert(match self.adopted {
            Some((adopted, since)) if adopted == epoch => (adopted, since),
            _ => (epoch, Instant::now()),
        });
        if since.elapsed() >= ADOPTED_AFTER {
            self.epoch = adopted;
        }
        let beat = Beat { epoch: self.epoch, p99_ms: runtime.metrics().protected_p99_ms() };
        if !runtime.presence().renew(conn, beat).await? {
            let registered = runtime.presence().register(conn, evolution.history()).await?;
            if let Err(gone) = registered {
                return Ok(gone);
            }
        }
        sample_meters(conn, evolution).await?;
        Ok(gone)
    }
}
