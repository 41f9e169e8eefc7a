//! The list of everything an application does.
mod assemble;
mod check;
mod registration;

pub use check::RegistrationErrors;
pub use registration::Registration;

use crate::{
    base::spec::{Durability, Spec, Trigger},
    changes::{Evolution, History, HistoryErrors, Sources},
    context::Live,
    edge,
    queue::Job,
    rabbitmq::Topology,
    triggers::{
        http, job,
        live::Feed,
        message, poll,
        reconcile::{self, Reconciler},
        rpc, schedule, sqlxmq_jobs,
    },
};
use anyhow::bail;
use prost::Name;
use registration::{Method, Run};
use sqlx::migrate::Migrator;

/// Which of its handlers a worker runs.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// These; the usual ones where it is empty.
    pub only: Vec<String>,
    /// And these.
    pub also: Vec<String>,
}

/// An application: its handlers, its gRPC services, its schema.
pub struct App {
    name: &'static str,
    migrator: &'static Migrator,
    registrations: Vec<Registration>,
    descriptors: Option<&'static [u8]>,
    reconcilers: Vec<reconcile::ErasedReconciler>,
    evolution: Evolution,
    /// Methods of the contracts that are not served.
    left_out: Vec<&'static str>,
    faults: Vec<String>,
}

impl App {
    /// An application without handlers. Its name starts those of its exchanges and queues.
    pub fn new(name: &'static str, migrator: &'static Migrator) -> Self {
        Self {
            name,
            migrator,
            registrations: Vec::new(),
            descriptors: None,
            reconcilers: Vec::new(),
            evolution: Evolution::default(),
            left_out: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Changes of the schema, those among them that last longer than their expand. Each process writes itself down, in
    /// the tables of the migration `0026_keep_schema_changes`, which the application's migrations must have. `programs`
    /// are the processes of this application by name: a session of one of them that is not written down is an older
    /// version's.
    #[must_use]
    pub fn changes(mut self, sources: Sources, programs: &'static [&'static str]) -> Self {
        match History::read(sources) {
            Ok(history) => self.evolution = Evolution::new(history, programs),
            Err(HistoryErrors(faults)) => self.faults.extend(faults),
        }
        self
    }

    /// A call that changes something.
    #[must_use]
    pub fn rpc_tx<H: rpc::TxHandler>(self) -> Self {
        self.register(
            H::SPEC,
            "rpc",
            Method::of::<H::Request, H::Reply>(rpc::Entry::tx::<H>, (H::ACCESS, false), |request, caller| {
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
            Method::of::<H::Request, H::Reply>(rpc::Entry::batched::<H>, (H::ACCESS, false), |request, caller| {
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
            Method::of::<H::Request, H::Reply>(rpc::Entry::io::<H>, (H::ACCESS, false), |request, caller| {
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
            Method::of::<H::Request, H::Reply>(rpc::Entry::stream::<H>, (H::ACCESS, true), |request, caller| {
                rpc::read(request, |request| H::parse(request, Some(caller)))
            }),
        )
    }

    /// An HTTP GET.
    #[must_use]
    pub fn http_io<H: http::IoHandler>(self) -> Self {
        self.register(H::SPEC, "http", Run::Http(http::mount::<H>))
    }

    /// Methods of the contracts that are not served here, such as streams of requests: who calls one is told
    /// UNIMPLEMENTED.
    #[must_use]
    pub fn leaves_out(mut self, methods: &[&'static str]) -> Self {
        self.left_out.extend(methods);
        self
    }

    /// Jobs of the crate sqlxmq, as they are.
    #[must_use]
    pub fn sqlxmq<J: sqlxmq_jobs::Jobs>(self) -> Self {
        self.register(J::SPEC, "sqlxmq", Run::Sqlxmq(J::registry))
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
        self.register(H::SPEC, "message", Run::Message(message::by_tx::<H>(), H::Message::full_name))
    }

    /// A consumer with effects elsewhere.
    #[must_use]
    pub fn message_io<H: message::IoHandler>(self) -> Self {
        self.register(H::SPEC, "message", Run::Message(message::by_io::<H>(), H::Message::full_name))
    }

    /// A consumer of many messages at a time, with pure database effects.
    #[must_use]
    pub fn message_tx_batch<H: message::TxBatchHandler>(self) -> Self {
        self.register_batched(H::SPEC, "message", Run::Message(message::by_tx_batch::<H>(), H::Message::full_name))
    }

    /// A consumer of many messages at a time, with effects elsewhere.
    #[must_use]
    pub fn message_io_batch<H: message::IoBatchHandler>(self) -> Self {
        self.register_batched(H::SPEC, "message", Run::Message(message::by_io_batch::<H>(), H::Message::full_name))
    }

    /// Something done regularly.
    #[must_use]
    pub fn schedule_tx<H: schedule::TxHandler>(self) -> Self {
        self.register(H::SPEC, "schedule", Run::Schedule(schedule::erased::<H>))
    }

    /// Something that looks, regularly, for what is past its time.
    #[must_use]
    pub fn reconciler<R: Reconciler>(mut self) -> Self {
        self.reconcilers.push(reconcile::ErasedReconciler::of::<R>());
        self.register(R::SPEC, "schedule", Run::Schedule(reconcile::ticking::<R>()))
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

    /// Registers a set of handlers, which is a function.
    #[must_use]
    pub fn with(self, set: impl FnOnce(Self) -> Self) -> Self {
        set(self)
    }

    /// The encoded descriptor set of the contracts of the `rpc` handlers, `grpc/health/v1/health.proto` among them.
    /// Every method in it must have a handler; those of health come with it.
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

    /// Returns what looks for what is overdue.
    pub(crate) fn reconcilers(&self) -> &[reconcile::ErasedReconciler] {
        &self.reconcilers
    }

    /// All registrations, in their order.
    pub fn registrations(&self) -> &[Registration] {
        &self.registrations
    }

    /// The worker's handlers of those names; all of them where none is named, but for those that must be.
    pub(crate) fn workers(&self, Chosen { only, also }: &Chosen) -> anyhow::Result<Vec<Registration>> {
        let workers: Vec<_> = self.registrations.iter().filter(|r| r.spec.trigger.is_workers()).copied().collect();
        let known = |name: &String| workers.iter().any(|worker| worker.spec.name == name);
        if let Some(unknown) = only.iter().chain(also).find(|name| !known(name)) {
            let names: Vec<_> = workers.iter().map(|worker| worker.spec.name).collect();
            bail!("no worker handler is called {unknown:?}; allowed: {}", names.join(", "));
        }
        let is_in = |names: &[String], worker: &Registration| names.iter().any(|name| name == worker.spec.name);
        let is_usual = |worker: &Registration| only.is_empty() && !worker.spec.only_when_named;
        let chosen = |worker: &Registration| is_usual(worker) || is_in(only, worker) || is_in(also, worker);
        Ok(workers.into_iter().filter(chosen).collect())
    }

    /// The topology this application declares, for tools that look at the broker.
    pub fn topology(&self) -> Topology {
        Topology::of(self.name, self.registrations.iter().map(|registration| registration.spec))
    }
}
