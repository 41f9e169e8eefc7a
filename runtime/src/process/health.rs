//! Looking at what a process needs.
//!
//! One task looks at every dependency, over connections of its own, and whoever asks is told what it found: however
//! many ask, and however busy the pools are, it costs the same. A database that is there and busy is no reason to be
//! sent no work: the others ask the same one.
use crate::{
    Class, Conn, Error, Result, Runtime,
    context::health::{Check, Readiness},
    postgres::State,
    schema,
};
use opentelemetry::{KeyValue, metrics::AsyncInstrument};
use std::time::{Duration, Instant};

/// Interval at which everything is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A dependency that does not answer within this time counts as down.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// A database that is busy for longer than this counts as down.
const BUSY_FOR: Duration = Duration::from_secs(10);

/// What a process can't work without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// A service takes calls without broker and cache: events wait in the outbox, reads go to the database.
    Database,
    /// A worker without the broker has nothing to relay to and nothing to consume from.
    DatabaseAndBroker,
}

/// What is kept from look to look.
pub(crate) struct Looker {
    needs: Needs,
    conn: Option<Conn>,
    busy_since: Option<Instant>,
}

/// Shows what was found.
pub(super) fn observe(runtime: &Runtime) {
    let health = runtime.health().clone();
    let gauge = runtime.metrics().meter().u64_observable_gauge("gavel_dependency_up");
    let gauge = gauge.with_description("1 where a dependency answered when it was last looked at");
    let each = move |observer: &dyn AsyncInstrument<u64>| {
        let found = health.readiness();
        for (dependency, check) in found.iter().flat_map(Readiness::checks) {
            observer.observe(check.up.into(), &[KeyValue::new("dependency", dependency)]);
        }
    };
    gauge.with_callback(each).build();
}

/// Looks again and again, until the process ends.
pub(crate) async fn run(runtime: Runtime, mut looker: Looker) {
    let closing = runtime.tasks().closing().clone();
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        looker.note(&runtime).await;
    }
}

impl Looker {
    pub(crate) fn new(needs: Needs) -> Self {
        Self { needs, conn: None, busy_since: None }
    }

    /// Looks, and says and keeps what was found.
    pub(crate) async fn note(&mut self, runtime: &Runtime) {
        let before = runtime.health().readiness();
        let found = self.look(runtime).await;
        found.report(before.as_ref());
        runtime.health().set(found);
    }

    /// Looks at every dependency at once.
    pub(crate) async fn look(&mut self, runtime: &Runtime) -> Readiness {
        let needs = self.needs;
        let ((database, schema), broker, cache) = tokio::join!(
            self.database(runtime),
            check(needs == Needs::DatabaseAndBroker, runtime.publisher().check()),
            check(false, runtime.cache().check()),
        );
        let keys = runtime.verifier().map(|verifier| Check::new(false, verifier.stale()));
        let ready = [&database, &schema, &broker, &cache].into_iter().all(Check::permits);
        Readiness { ready, draining: false, database, schema, broker, cache, keys }.unless_draining(runtime.tasks())
    }

    /// The database, and its schema.
    async fn database(&mut self, runtime: &Runtime) -> (Check, Check) {
        let (state, has_moved) = runtime.pools().connector.look(&mut self.conn).await;
        if has_moved {
            runtime.pools().follow();
        }
        let unknown = || Check::new(true, Some("it can't be looked at".to_owned()));
        let problem = match state {
            State::Up => None,
            State::Busy(why) => {
                let since = *self.busy_since.get_or_insert_with(Instant::now);
                if since.elapsed() < BUSY_FOR {
                    // As it was when it was last looked at.
                    let schema = runtime.health().readiness().map_or_else(unknown, |before| before.schema);
                    return (Check::new(true, None), schema);
                }
                Some(why)
            }
            State::Down(why) => Some(why),
        };
        if let Some(why) = problem {
            return (Check::new(true, Some(why.to_owned())), unknown());
        }
        self.busy_since = None;
        let Some(conn) = &mut self.conn else { return (Check::new(true, None), unknown()) };
        let gaps = async {
            let gaps = schema::gaps(conn, runtime.migrator()).await?;
            if gaps.is_empty() { Ok(()) } else { Err(Error::new(Class::Unavailable, joined(&gaps))) }
        };
        let schema = check(true, gaps).await;
        (Check::new(true, None), schema)
    }
}

async fn check(required: bool, check: impl Future<Output = Result<()>>) -> Check {
    let result = tokio::time::timeout(CHECK_TIMEOUT, check).await;
    let late = || Err(Error::new(Class::Unavailable, format!("no answer within {CHECK_TIMEOUT:?}")));
    let error = result.unwrap_or_else(|_| late()).err();
    Check::new(
        required,
        error.map(|error| {
            tracing::debug!(%error, "a dependency was looked at");
            error.message().to_owned()
        }),
    )
}

/// All gaps in one line.
pub(crate) fn joined(gaps: &[schema::Gap]) -> String {
    gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
