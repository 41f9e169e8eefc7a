//! The list of everything an application does.
use crate::{
    Runtime,
    auth::Verifier,
    broker::Topology,
    config::Backends,
    edge::{self, Contract, Contracts, Dispatch},
    http,
    job::{self, Job},
    live::{Feed, Live},
    message, poll, rpc, schedule,
    server::Routes,
    spec::{Durability, Spec, Trigger},
};
use anyhow::bail;
use poem::Route;
use prost::Name;
use sqlx::migrate::Migrator;
use std::{collections::BTreeSet, fmt};

/// An application: its handlers, its gRPC services, its schema.
pub struct App {
    name: &'static str,
    migrator: &'static Migrator,
    registrations: Vec<Registration>,
    descriptors: Option<&'static [u8]>,
    faults: Vec<String>,
}

/// One handler, as registered.
#[derive(Clone, Copy)]
pub struct Registration {
    /// Its name, trigger and limits.
    pub spec: &'static Spec,
    run: Run,
}

#[derive(Clone, Copy)]
enum Run {
    Rpc(Method),
    /// Mounts a route.
    Http(fn(&Runtime, Route) -> Route),
    Job(job::Handler),
    Message(message::Erased),
    Schedule(schedule::Erased),
    Poll(poll::Erased),
    /// Adds a hub.
    Feed(fn(&mut Live)),
}

/// A method's handler.
#[derive(Clone, Copy)]
struct Method {
    open: fn(&Runtime) -> rpc::Entry,
    /// Its messages' full names.
    request: fn() -> String,
    reply: fn() -> String,
    streams: bool,
    read: rpc::Read,
}

impl Method {
    fn of<Request: Name, Reply: Name>(open: fn(&Runtime) -> rpc::Entry, streams: bool, read: rpc::Read) -> Run {
        Run::Rpc(Self { open, request: Request::full_name, reply: Reply::full_name, streams, read })
    }
}

impl Registration {
    /// Starts a worker's loops.
    pub(crate) fn start(&self, runtime: &Runtime) {
        let (tasks, own, spec) = (runtime.tasks(), runtime.clone(), self.spec);
        match self.run {
            Run::Rpc(_) | Run::Http(_) | Run::Feed(_) => {}
            Run::Job(handler) => job::run(&own, spec, handler),
            Run::Message(handler) => drop(tasks.spawn(message::run(own, spec, handler))),
            Run::Schedule(handler) => drop(tasks.spawn(schedule::run(own, spec, handler))),
            Run::Poll(handler) => poll::run(&own, spec, handler),
        }
    }
}

/// Everything that is wrong with the registrations, each line naming the handler.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RegistrationErrors {
    /// One line each.
    pub faults: Vec<String>,
}

impl fmt::Display for RegistrationErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handlers can't be registered:")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
    }
}

impl App {
    /// An application without handlers. Its name starts those of its exchanges and queues.
    pub fn new(name: &'static str, migrator: &'static Migrator) -> Self {
        Self { name, migrator, registrations: Vec::new(), descriptors: None, faults: Vec::new() }
    }

    /// A call that changes something.
    #[must_use]
    pub fn rpc_tx<H: rpc::TxHandler>(self) -> Self {
        self.register(
            H::SPEC,
            "rpc",
            Method::of::<H::Request, H::Reply>(rpc::Entry::tx::<H>, false, |request, caller| {
                rpc::read(request, |request| H::parse(request, caller))
            }),
        )
    }

    /// A call that changes something, decided together with others.
    #[must_use]
    pub fn rpc_batch<H: rpc::BatchHandler>(self) -> Self {
        self.register_batched(
            H::SPEC,
            "rpc",
            Method::of::<H::Request, H::Reply>(rpc::Entry::batched::<H>, false, |request, caller| {
                rpc::read(request, |request| H::parse(request, caller))
            }),
        )
    }

    /// A call that reads.
    #[must_use]
    pub fn rpc_io<H: rpc::IoHandler>(self) -> Self {
        self.register(
            H::SPEC,
            "rpc",
            Method::of::<H::Request, H::Reply>(rpc::Entry::io::<H>, false, |request, caller| {
                rpc::read(request, |request| H::parse(request, Some(caller)))
            }),
        )
    }

    /// A call that is answered by a stream.
    #[must_use]
    pub fn rpc_stream<H: rpc::StreamHandler>(self) -> Self {
        self.register(
            H::SPEC,
            "rpc",
            Method::of::<H::Request, H::Reply>(rpc::Entry::stream::<H>, true, |request, caller| {
                rpc::read(request, |request| H::parse(request, Some(caller)))
            }),
        )
    }

    /// An HTTP GET.
    #[must_use]
    pub fn http_io<H: http::IoHandler>(self) -> Self {
        self.register(H::SPEC, "http", Run::Http(http::mount::<H>))
    }

    /// A kind of job with pure database effects.
    #[must_use]
    pub fn job_tx<H: job::TxHandler>(self) -> Self {
        self.job::<H::Job>(H::SPEC, job::by_tx::<H>(), true)
    }

    /// A kind of job with pure database effects, many at a time: as many as its queue's batch.
    #[must_use]
    pub fn job_tx_batch<H: job::BatchHandler>(self) -> Self {
        self.job::<H::Job>(H::SPEC, job::by_tx_batch::<H>(), true)
    }

    /// A kind of job with effects elsewhere.
    #[must_use]
    pub fn job_io<H: job::IoHandler>(self) -> Self {
        self.job::<H::Job>(H::SPEC, job::by_io::<H>(), false)
    }

    fn job<J: Job>(mut self, spec: &'static Spec, handler: job::Handler, in_transaction: bool) -> Self {
        let (kind, retries) = (J::KIND, J::RETRIES);
        if let Trigger::Job(queue) = spec.trigger
            && (queue.durability == Durability::Tx) != in_transaction
        {
            let allowed = if in_transaction { "Tx" } else { "Group or Inline" };
            self.faults
                .push(format!("handler {:?}: its durability is {:?}; allowed: {allowed}", spec.name, queue.durability));
        }
        if J::PER_KEY == Some(0) {
            self.faults.push(format!("handler {:?}: PER_KEY of 0 runs nothing; allowed: from 1", spec.name));
        }
        if spec.name != kind || spec.limits.retries != retries {
            let differs = format!("its job says kind {kind:?} and {retries} retries, its spec {}", spec.limits.retries);
            self.faults.push(format!("handler {:?}: {differs}", spec.name));
        }
        self.register(spec, "job", Run::Job(handler))
    }

    /// A consumer with pure database effects.
    #[must_use]
    pub fn message_tx<H: message::TxHandler>(self) -> Self {
        self.register(H::SPEC, "message", Run::Message(message::by_tx::<H>()))
    }

    /// A consumer with effects elsewhere.
    #[must_use]
    pub fn message_io<H: message::IoHandler>(self) -> Self {
        self.register(H::SPEC, "message", Run::Message(message::by_io::<H>()))
    }

    /// A consumer of many messages at a time, with pure database effects.
    #[must_use]
    pub fn message_tx_batch<H: message::TxBatchHandler>(self) -> Self {
        self.register_batched(H::SPEC, "message", Run::Message(message::by_tx_batch::<H>()))
    }

    /// A consumer of many messages at a time, with effects elsewhere.
    #[must_use]
    pub fn message_io_batch<H: message::IoBatchHandler>(self) -> Self {
        self.register_batched(H::SPEC, "message", Run::Message(message::by_io_batch::<H>()))
    }

    /// Something done regularly.
    #[must_use]
    pub fn schedule_tx<H: schedule::TxHandler>(self) -> Self {
        self.register(H::SPEC, "schedule", Run::Schedule(schedule::erased::<H>))
    }

    /// A kind of topics that can be watched.
    #[must_use]
    pub fn feed<F: Feed>(self) -> Self {
        self.register(F::SPEC, "broadcast", Run::Feed(Live::add::<F>))
    }

    /// A loop over pending work.
    #[must_use]
    pub fn poll_io<H: poll::IoHandler>(self) -> Self {
        self.register(H::SPEC, "poll", Run::Poll(poll::erased::<H>))
    }

    /// The encoded descriptor set of the contracts of the `rpc` handlers, `grpc/health/v1/health.proto` among them. Every
    /// method in it must have a handler; those of health come with it.
    #[must_use]
    pub fn contracts(self, descriptors: &'static [u8]) -> Self {
        let app = Self { descriptors: Some(descriptors), ..self };
        app.rpc_io::<edge::health::Check>().rpc_stream::<edge::health::Watch>()
    }

    fn register_batched(mut self, spec: &'static Spec, expected: &str, run: Run) -> Self {
        if spec.batch.is_none() {
            self.faults.push(format!("handler {:?}: it handles batches and its spec has no batch", spec.name));
        }
        self.add(spec, expected, run)
    }

    fn register(mut self, spec: &'static Spec, expected: &str, run: Run) -> Self {
        if spec.batch.is_some() {
            self.faults.push(format!("handler {:?}: its spec has a batch and it handles one at a time", spec.name));
        }
        self.add(spec, expected, run)
    }

    fn add(mut self, spec: &'static Spec, expected: &str, run: Run) -> Self {
        let kind = spec.trigger.kind();
        if kind != expected {
            self.faults.push(format!("handler {:?}: registered as {expected}, but its trigger is {kind}", spec.name));
        }
        self.registrations.push(Registration { spec, run });
        self
    }

    /// All registrations, in their order.
    pub fn registrations(&self) -> &[Registration] {
        &self.registrations
    }

    /// Checks everything that can be wrong before anything runs.
    ///
    /// # Errors
    /// Names every handler that is registered twice or has an invalid spec, and every method without a handler.
    pub fn checked(self) -> Result<Self, RegistrationErrors> {
        let mut faults = self.faults.clone();
        let mut names = BTreeSet::new();
        let mut routes = BTreeSet::new();
        for Registration { spec, .. } in &self.registrations {
            faults.extend(spec.faults());
            if !names.insert(spec.name) {
                faults.push(format!("handler {:?}: registered twice", spec.name));
            }
            if let Trigger::Rpc(route) | Trigger::Http(route) = spec.trigger
                && !routes.insert(route)
            {
                faults.push(format!("handler {:?}: {route} has a handler already", spec.name));
            }
        }
        if let Some(descriptors) = self.descriptors {
            faults.extend(contract_faults(descriptors, &self.registrations));
        }
        if faults.is_empty() { Ok(self) } else { Err(RegistrationErrors { faults }) }
    }

    /// The worker's handlers of those names; all of them where none is named.
    pub(crate) fn workers(&self, only: &[String]) -> anyhow::Result<Vec<Registration>> {
        let workers: Vec<_> = self.registrations.iter().filter(|r| r.spec.trigger.is_workers()).copied().collect();
        let known = |name: &String| workers.iter().any(|worker| worker.spec.name == name);
        if let Some(unknown) = only.iter().find(|name| !known(name)) {
            let names: Vec<_> = workers.iter().map(|worker| worker.spec.name).collect();
            bail!("no worker handler is called {unknown:?}; allowed: {}", names.join(", "));
        }
        let chosen = |worker: &Registration| only.is_empty() || only.iter().any(|name| name == worker.spec.name);
        Ok(workers.into_iter().filter(chosen).collect())
    }

    pub(crate) fn runtime(
        &self,
        backends: &Backends,
        process: &str,
        verifier: Option<Verifier>,
    ) -> anyhow::Result<Runtime> {
        let specs = || self.registrations.iter().map(|registration| registration.spec);
        let topology = Topology::of(self.name, specs());
        let mut live = Live::default();
        for registration in &self.registrations {
            if let Run::Feed(add) = registration.run {
                add(&mut live);
            }
        }
        Runtime::new(backends, process, topology, verifier, self.migrator, specs(), live)
    }

    pub(crate) fn routes(&self, runtime: &Runtime) -> anyhow::Result<Routes> {
        let mut route = Route::new();
        for registration in &self.registrations {
            if let Run::Http(mount) = registration.run {
                route = mount(runtime, route);
            }
        }
        let Some(descriptors) = self.descriptors else { return Ok(Routes { calls: None, all: route }) };
        let (contracts, mut dispatch) = (Contracts::read(descriptors)?, Dispatch::new(runtime));
        for Registration { spec, run } in &self.registrations {
            if let (Run::Rpc(method), Trigger::Rpc(name)) = (run, spec.trigger) {
                dispatch.add(name, spec, &contracts, (method.open)(runtime));
            }
        }
        let (all, calls) = edge::mount(route, descriptors, dispatch);
        Ok(Routes { calls: Some(calls), all })
    }

    /// How each method's requests are read, beside what the contracts say of it.
    pub(crate) fn readers(&self) -> anyhow::Result<Vec<(Contract, rpc::Read)>> {
        let contracts = Contracts::read(self.descriptors.unwrap_or_default())?;
        let methods = self.registrations.iter().filter_map(|Registration { spec, run }| match (run, spec.trigger) {
            (Run::Rpc(method), Trigger::Rpc(name)) => Some((contracts.get(name)?.clone(), method.read)),
            _ => None,
        });
        Ok(methods.collect())
    }

    /// The topology this application declares, for tools that look at the broker.
    pub fn topology(&self) -> Topology {
        Topology::of(self.name, self.registrations.iter().map(|registration| registration.spec))
    }
}

/// Methods without a handler, handlers without a method, and where the two differ.
fn contract_faults(descriptors: &[u8], registrations: &[Registration]) -> Vec<String> {
    let contracts = match Contracts::read(descriptors) {
        Ok(contracts) => contracts,
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut left: BTreeSet<_> = contracts.methods().collect();
    let mut faults = Vec::new();
    for Registration { spec, run } in registrations {
        let (Run::Rpc(method), Trigger::Rpc(name)) = (run, spec.trigger) else { continue };
        left.remove(name);
        match contracts.get(name) {
            None => faults.push(format!("handler {:?}: the contracts have no method {name}", spec.name)),
            Some(contract) => {
                let differs = contract.differs(&(method.request)(), &(method.reply)(), method.streams);
                faults.extend(differs.map(|differs| format!("handler {:?}: {differs}", spec.name)));
            }
        }
    }
    faults.extend(left.into_iter().map(|method| format!("method {method} has no handler")));
    faults
}
