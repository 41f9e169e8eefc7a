//! One handler, as registered, its types forgotten.
use crate::{
    Runtime,
    base::{Access, spec::Spec},
    context::Live,
    triggers::{job, message, poll, rpc, schedule, sqlxmq_jobs},
};
use poem::Route;
use prost::Name;

/// One handler, as registered.
#[derive(Clone, Copy)]
pub struct Registration {
    /// Its name, trigger and limits.
    pub spec: &'static Spec,
    pub(super) run: Run,
}

#[derive(Clone, Copy)]
pub(super) enum Run {
    Rpc(Method),
    /// Mounts a route.
    Http(fn(&Runtime, Route) -> Route),
    Job(job::Handler),
    /// A consumer, and its message's full name.
    Message(message::ErasedConsumer, fn() -> String),
    Schedule(schedule::ErasedSchedule),
    Poll(poll::ErasedPoll),
    Sqlxmq(sqlxmq_jobs::ErasedRegistry),
    /// Adds a hub.
    Feed(fn(&mut Live)),
}

/// A method's handler.
#[derive(Clone, Copy)]
pub(super) struct Method {
    pub(super) open: fn(&Runtime) -> rpc::Entry,
    /// Its messages' full names.
    pub(super) request: fn() -> String,
    pub(super) reply: fn() -> String,
    pub(super) streams: bool,
    pub(super) read: rpc::Read,
    pub(super) access: Access,
}

impl Method {
    pub(super) fn of<Request: Name, Reply: Name>(
        open: fn(&Runtime) -> rpc::Entry,
        (access, streams): (Access, bool),
        read: rpc::Read,
    ) -> Run {
        Run::Rpc(Self { open, request: Request::full_name, reply: Reply::full_name, streams, read, access })
    }
}

impl Registration {
    /// The consumer, where it is one.
    pub(crate) fn consumer(&self) -> Option<(&'static Spec, message::ErasedConsumer)> {
        if let Run::Message(handler, _) = self.run { Some((self.spec, handler)) } else { None }
    }

    /// Starts a worker's loops.
    pub(crate) fn start(&self, runtime: &Runtime) {
        let (tasks, own, spec) = (runtime.tasks(), runtime.clone(), self.spec);
        match self.run {
            Run::Rpc(_) | Run::Http(_) | Run::Feed(_) => {}
            Run::Job(handler) => job::run(&own, spec, handler),
            Run::Message(handler, _) => drop(tasks.spawn(message::run(own, spec, handler))),
            Run::Schedule(handler) => drop(tasks.spawn(schedule::run(own, spec, handler))),
            Run::Poll(handler) => poll::run(&own, spec, handler),
            Run::Sqlxmq(registry) => drop(tasks.spawn(sqlxmq_jobs::run(own, spec, registry))),
        }
    }
}
