//! What the handlers of one process share.
use crate::{
    Class, Error, Invocation, Result,
    auth::Verifier,
    broker::{BrokerUrl, Publisher, Topology},
    cache::Cache,
    config::{Backends, Streams},
    db::Pools,
    job::Engine,
    live::Live,
    pace::Paces,
    spec::Spec,
    tasks::Tasks,
    telemetry::Metrics,
};
use sqlx::migrate::Migrator;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whoever is turned away because all places are taken is asked to wait this long.
pub(crate) const BUSY: Duration = Duration::from_millis(200);

/// Overload is put into the log no more often.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// A running process. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    pools: Pools,
    broker: BrokerUrl,
    topology: Topology,
    publisher: Publisher,
    cache: Cache,
    metrics: Metrics,
    tasks: Tasks,
    verifier: Option<Verifier>,
    migrator: &'static Migrator,
    doors: HashMap<&'static str, Door>,
    paces: Paces,
    live: Live,
    streams: Streams,
    jobs: Engine,
    process: String,
    specs: Vec<&'static Spec>,
}

/// The door of a handler.
struct Door {
    places: Arc<Semaphore>,
    turned_away: Mutex<(u64, Option<Instant>)>,
}

impl Door {
    fn of(spec: &Spec) -> Self {
        Self { places: Arc::new(Semaphore::new(spec.limits.concurrency)), turned_away: Mutex::default() }
    }

    /// One more was turned away. Once a second: how many since it was last said.
    fn count(&self) -> Option<u64> {
        let mut turned_away = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        turned_away.0 += 1;
        if turned_away.1.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return None;
        }
        turned_away.1 = Some(Instant::now());
        Some(std::mem::take(&mut turned_away.0))
    }
}

impl Runtime {
    /// Nothing is connected yet: each part connects when first used.
    pub(crate) fn new(
        backends: &Backends,
        process: &str,
        topology: Topology,
        verifier: Option<Verifier>,
        migrator: &'static Migrator,
        specs: impl Iterator<Item = &'static Spec>,
        live: Live,
    ) -> anyhow::Result<Self> {
        let broker = BrokerUrl::of(backends);
        let specs: Vec<_> = specs.collect();
        let (tasks, jobs) = (Tasks::default(), Engine::new(&specs, backends.lease));
        Ok(Self(Arc::new(Inner {
            pools: Pools::lazy(backends, process, &jobs, &tasks)?,
            publisher: Publisher::new(broker.clone(), topology.clone(), process),
            broker,
            topology,
            cache: Cache::lazy(backends)?,
            metrics: Metrics::new()?,
            tasks,
            verifier,
            migrator,
            jobs,
            process: process.to_owned(),
            paces: Paces::new(backends.rates),
            live,
            streams: backends.streams,
            doors: specs.iter().map(|spec| (spec.name, Door::of(spec))).collect(),
            specs,
        })))
    }

    pub(crate) fn pools(&self) -> &Pools {
        &self.0.pools
    }

    pub(crate) fn broker(&self) -> &BrokerUrl {
        &self.0.broker
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.0.topology
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        &self.0.publisher
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    pub(crate) fn verifier(&self) -> Option<&Verifier> {
        self.0.verifier.as_ref()
    }

    pub(crate) fn paces(&self) -> &Paces {
        &self.0.paces
    }

    /// What can be watched.
    pub(crate) fn live(&self) -> &Live {
        &self.0.live
    }

    pub(crate) fn streams(&self) -> Streams {
        self.0.streams
    }

    /// Lets one more run of the handler in, or refuses at once: nobody queues at the door.
    pub(crate) fn admit(&self, spec: &Spec) -> Result<OwnedSemaphorePermit> {
        let unregistered = || Error::internal(anyhow::anyhow!("handler {} is not registered", spec.name));
        let door = self.0.doors.get(spec.name).ok_or_else(unregistered)?;
        door.places.clone().try_acquire_owned().map_err(|_| full(spec))
    }

    /// The refusal of a call that would find no place, before anything of it was read. It is only a look: who sends slowly
    /// must not hold a place meanwhile.
    pub(crate) fn turned_away_unread(&self, spec: &'static Spec) -> Option<Error> {
        let door = self.0.doors.get(spec.name)?;
        (door.places.available_permits() == 0).then(|| self.count(spec, full(spec)))
    }

    /// Says that a call was refused at the door; gives the error back. Under overload that is counted, and said once a
    /// second: refusing must cost next to nothing.
    pub(crate) fn turned_away(&self, spec: &'static Spec, invocation: &Invocation, error: Error) -> Error {
        let correlation_id = &invocation.correlation_id;
        if error.class() != Class::Exhausted {
            tracing::info!(handler = spec.name, correlation_id, %error, "refused at the door");
            return error;
        }
        self.count(spec, error)
    }

    fn count(&self, spec: &'static Spec, error: Error) -> Error {
        self.metrics().turned_away(spec.name);
        if let Some(turned_away) = self.0.doors.get(spec.name).and_then(Door::count) {
            tracing::warn!(handler = spec.name, turned_away, %error, "calls are refused: a limit is reached");
        }
        error
    }

    /// The kinds of jobs that this application knows, and those that it holds.
    pub(crate) fn jobs(&self) -> &Engine {
        &self.0.jobs
    }

    /// This process's name.
    pub(crate) fn process(&self) -> &str {
        &self.0.process
    }

    /// Every handler, as registered.
    pub(crate) fn specs(&self) -> &[&'static Spec] {
        &self.0.specs
    }

    pub(crate) fn migrator(&self) -> &'static Migrator {
        self.0.migrator
    }
}

fn full(spec: &Spec) -> Error {
    let most = spec.limits.concurrency;
    let error = Error::new(Class::Exhausted, format!("{} runs {most} times at once already; try again", spec.name));
    error.with_retry_after(BUSY)
}
