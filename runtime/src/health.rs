//! Is this process alive, and may it be sent work? Each dependency is named, and what a process can do without says so.
use crate::{Runtime, schema};
use serde::Serialize;
use std::time::Duration;

/// A dependency that does not answer within this time counts as down.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// What a process can't work without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// A service takes calls without broker and cache: events wait in the outbox, reads go to the database.
    Database,
    /// A worker without the broker has nothing to relay to and nothing to consume from.
    DatabaseAndBroker,
}

/// The answer to `/readyz`.
#[derive(Debug, Serialize)]
pub(crate) struct Readiness {
    /// Whether this process should be sent work.
    pub(crate) ready: bool,
    /// It has been told to stop.
    draining: bool,
    pub(crate) database: Check,
    pub(crate) schema: Check,
    pub(crate) broker: Check,
    pub(crate) cache: Check,
}

#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) up: bool,
    /// Not ready without it.
    required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl Check {
    async fn of(required: bool, check: impl Future<Output = Result<(), String>>) -> Self {
        let result = tokio::time::timeout(CHECK_TIMEOUT, check).await;
        let problem = result.unwrap_or_else(|_| Err(format!("no answer within {CHECK_TIMEOUT:?}"))).err();
        Self { up: problem.is_none(), required, problem }
    }

    fn permits(&self) -> bool {
        self.up || !self.required
    }
}

/// Asks every dependency at once.
pub(crate) async fn readiness(runtime: &Runtime, needs: Needs) -> Readiness {
    let pool = &runtime.pools().reads;
    let (database, schema, broker, cache) = tokio::join!(
        Check::of(true, async {
            sqlx::query("SELECT 1").execute(pool).await.map(drop).map_err(|error| error.to_string())
        }),
        Check::of(true, async {
            let gaps = schema::gaps(pool, runtime.migrator()).await.map_err(|error| error.to_string())?;
            if gaps.is_empty() { Ok(()) } else { Err(joined(&gaps)) }
        }),
        Check::of(needs == Needs::DatabaseAndBroker, async {
            runtime.publisher().check().await.map_err(|error| format!("{error:#}"))
        }),
        Check::of(false, async { runtime.cache().check().await.map_err(|error| error.to_string()) }),
    );
    let draining = runtime.tasks().draining().is_cancelled();
    let ready = !draining && [&database, &schema, &broker, &cache].into_iter().all(Check::permits);
    Readiness { ready, draining, database, schema, broker, cache }
}

/// All gaps in one line.
pub(crate) fn joined(gaps: &[schema::Gap]) -> String {
    gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
