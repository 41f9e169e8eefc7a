//! What the handlers of one process share.
use super::{Live, admission::Admission, health::Health};
use crate::{
    auth::Verifier,
    base::{spec::Spec, tasks::Tasks},
    changes::Evolution,
    config::{Backends, Streams},
    postgres::Pools,
    queue::{Engine, Waker},
    rabbitmq::{BrokerUrl, Publisher, Topology},
    redis::Cache,
    schema::Presence,
    telemetry::Metrics,
};
use sqlx::migrate::Migrator;
use std::sync::Arc;

/// A running process. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    pools: Pools,
    broker: BrokerUrl,
    topology: Topology,
    publisher: Publisher,
    cache: Cache,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    verifier: Option<Verifier>,
    migrator: &'static Migrator,
    admission: Admission,
    health: Arc<Health>,
    live: Live,
    streams: Streams,
    jobs: Engine,
    waker: Waker,
    process: String,
    presence: Presence,
    contracts: String,
    specs: Vec<&'static Spec>,
}

/// What a process is started for.
pub(crate) enum Role {
    /// Calls and streams, whose tokens are checked by this.
    Service(Box<Verifier>),
    /// Everything else.
    Worker,
    /// Looking on.
    Observer,
}

impl Runtime {
    /// Nothing is connected yet: each part connects when first used.
    pub(crate) fn new(
        backends: &Backends,
        process: &str,
        role: Role,
        (topology, contracts): (Topology, String),
        (migrator, evolution): (&'static Migrator, Evolution),
        specs: impl Iterator<Item = &'static Spec>,
        live: Live,
    ) -> anyhow::Result<Self> {
        let publishes = matches!(role, Role::Worker);
        let verifier = if let Role::Service(verifier) = role { Some(*verifier) } else { None };
        let broker = BrokerUrl::of(backends);
        let specs: Vec<_> = specs.collect();
        let (tasks, jobs) = (Tasks::default(), Engine::new(&specs, backends.lease));
        let metrics = Arc::new(Metrics::new()?);
        metrics.protect(specs.iter().filter(|spec| spec.is_protected).map(|spec| spec.name).collect());
        if let Some(verifier) = &verifier {
            metrics.observe_keys(verifier.figures());
        }
        let presence = Presence::new(process);
        let session = if evolution.is_watched() { presence.session_name() } else { process.to_owned() };
        let pools = Pools::lazy(backends, &session, evolution)?;
        let waker = Waker::new(pools.bookkeeping.clone(), tasks.clone(), jobs.kinds().clone());
        Ok(Self(Arc::new(Inner {
            pools: pools.told(Arc::new(waker.clone())),
            waker,
            publisher: Publisher::new(broker.clone(), topology.clone(), process, publishes),
            broker,
            topology,
            cache: Cache::lazy(backends)?,
            admission: Admission::new(&specs, &backends.limits, metrics.clone()),
            metrics,
            health: Arc::default(),
            tasks,
            verifier,
            migrator,
            jobs,
            process: process.to_owned(),
            presence,
            contracts,
            live,
            streams: backends.streams,
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

    /// Returns who may come in.
    pub(crate) fn admission(&self) -> &Admission {
        &self.0.admission
    }

    /// Returns what was found when the dependencies were last looked at.
    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.0.health
    }

    /// Returns what can be watched.
    pub(crate) fn live(&self) -> &Live {
        &self.0.live
    }

    pub(crate) fn streams(&self) -> Streams {
        self.0.streams
    }

    /// The kinds of jobs that this application knows, and those that it holds.
    pub(crate) fn jobs(&self) -> &Engine {
        &self.0.jobs
    }

    /// Tells workers that there is something to do.
    pub(crate) fn waker(&self) -> &Waker {
        &self.0.waker
    }

    /// This process's name.
    pub(crate) fn process(&self) -> &str {
        &self.0.process
    }

    /// This process, as it is written down beside the schema.
    pub(crate) fn presence(&self) -> &Presence {
        &self.0.presence
    }

    /// Names the contracts that this application was built with.
    pub(crate) fn contracts(&self) -> &str {
        &self.0.contracts
    }

    /// Every handler, as registered.
    pub(crate) fn specs(&self) -> &[&'static Spec] {
        &self.0.specs
    }

    pub(crate) fn migrator(&self) -> &'static Migrator {
        self.0.migrator
    }
}
