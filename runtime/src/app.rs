//! The list of everything an application does.
use crate::{
    Runtime,
    auth::Verifier,
    broker::Topology,
    config::Backends,
    front::Front,
    http,
    job::{self, Job},
    message, poll, rpc, schedule,
    spec::{Durability, Spec, Trigger},
};
use anyhow::bail;
use poem::{EndpointExt, IntoEndpoint, Route};
use poem_grpc::RouteGrpc;
use prost::Message;
use sqlx::migrate::Migrator;
use std::{collections::BTreeSet, fmt};

/// An application: its handlers, its gRPC services, its schema.
pub struct App {
    name: &'static str,
    migrator: &'static Migrator,
    registrations: Vec<Registration>,
    services: Option<Services>,
    faults: Vec<String>,
}

struct Services {
    descriptors: &'static [u8],
    mount: fn(&Runtime, RouteGrpc) -> RouteGrpc,
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
    /// Called through a gRPC service.
    Rpc,
    /// Mounts a route.
    Http(fn(&Runtime, Route) -> Route),
    Job(job::Handler),
    Message(message::Erased),
    Schedule(schedule::Erased),
    Poll(poll::Erased),
}

impl Registration {
    /// Starts a worker's loops.
    pub(crate) fn start(&self, runtime: &Runtime) {
        let (tasks, own, spec) = (runtime.tasks(), runtime.clone(), self.spec);
        match self.run {
            Run::Rpc | Run::Http(_) => {}
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
        Self { name, migrator, registrations: Vec::new(), services: None, faults: Vec::new() }
    }

    /// A gRPC call that changes something.
    #[must_use]
    pub fn rpc_tx<H: rpc::TxHandler>(self) -> Self {
        self.register(H::SPEC, "rpc", Run::Rpc)
    }

    /// A gRPC call that changes something, decided together with others. Its service holds a
    /// [`Batched`](rpc::Batched) of it.
    #[must_use]
    pub fn rpc_batch<H: rpc::BatchHandler>(self) -> Self {
        self.register_batched(H::SPEC, "rpc", Run::Rpc)
    }

    /// A gRPC call that reads.
    #[must_use]
    pub fn rpc_io<H: rpc::IoHandler>(self) -> Self {
        self.register(H::SPEC, "rpc", Run::Rpc)
    }

    /// A gRPC call that is answered by a stream.
    #[must_use]
    pub fn rpc_stream<H: rpc::StreamHandler>(self) -> Self {
        self.register(H::SPEC, "rpc", Run::Rpc)
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

    /// A loop over pending work.
    #[must_use]
    pub fn poll_io<H: poll::IoHandler>(self) -> Self {
        self.register(H::SPEC, "poll", Run::Poll(poll::erased::<H>))
    }

    /// The gRPC services that lead to the `rpc` handlers, and the encoded descriptor set of their contracts. Every
    /// method in it must have a handler.
    #[must_use]
    pub fn grpc(mut self, descriptors: &'static [u8], mount: fn(&Runtime, RouteGrpc) -> RouteGrpc) -> Self {
        self.services = Some(Services { descriptors, mount });
        self
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
        if let Some(services) = &self.services {
            faults.extend(contract_faults(services.descriptors, &self.registrations));
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
        Runtime::new(backends, process, topology, verifier, self.migrator, specs())
    }

    pub(crate) fn routes(&self, runtime: &Runtime, route: Route) -> Route {
        let mut route = self.registrations.iter().fold(route, |route, registration| match registration.run {
            Run::Http(mount) => mount(runtime, route),
            _ => route,
        });
        if let Some(services) = &self.services {
            let grpc = (services.mount)(runtime, RouteGrpc::new()).into_endpoint().map_to_response().with(Front);
            route = route.nest_no_strip("/", grpc);
        }
        route
    }

    /// The topology this application declares, for tools that look at the broker.
    pub fn topology(&self) -> Topology {
        Topology::of(self.name, self.registrations.iter().map(|registration| registration.spec))
    }
}

/// Methods without a handler, and handlers without a method.
fn contract_faults(descriptors: &[u8], registrations: &[Registration]) -> Vec<String> {
    let set = match prost_types::FileDescriptorSet::decode(descriptors) {
        Ok(set) => set,
        Err(error) => return vec![format!("the contracts' descriptor set can't be read: {error}")],
    };
    let mut methods = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                methods.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    let mut faults = Vec::new();
    for Registration { spec, .. } in registrations {
        if let Trigger::Rpc(method) = spec.trigger
            && !methods.remove(method)
        {
            faults.push(format!("handler {:?}: the contracts have no method {method}", spec.name));
        }
    }
    faults.extend(methods.into_iter().map(|method| format!("method {method} has no handler")));
    faults
}
