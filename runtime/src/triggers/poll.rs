//! Loops over pending work: claim in one transaction, do I/O outside any, settle in another.
//!
//! Each loop goes on while there is work and pauses when there is none, or until an event has been committed. What it
//! does must bear being done twice: a process that dies between its I/O and its settling leaves the work to the next.
use crate::{
    Invocation, Io, Result, Runtime,
    base::{
        backoff,
        spec::{Spec, Trigger},
    },
    context::invoke::invoke,
    postgres::tx::bounded,
};

use futures_util::future::BoxFuture;
use std::{sync::Arc, time::Duration};

/// Pauses while the handler fails grow up to this.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What one run found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to do: pause.
    Idle,
    /// Something was done: look again at once.
    Worked,
}

/// A loop over pending work.
pub trait IoHandler: Send + Sync + 'static {
    /// Name, idle pause and limits. The concurrency is the number of loops in one process.
    const SPEC: &'static Spec;
    /// What a claim found to do.
    type Work: Send + 'static;

    /// Takes some work, in a transaction of its own. None when there is none.
    fn claim(io: &Io) -> impl Future<Output = Result<Option<Self::Work>>> + Send;

    /// Does the work and settles it.
    fn handle(io: &Io, work: Self::Work) -> impl Future<Output = Result<()>> + Send;
}

/// A handler with its types forgotten, so that the loop is compiled once: the claim, and what was claimed as work to
/// run.
pub(crate) type ErasedPoll = fn(Arc<Io>) -> BoxFuture<'static, Result<Option<BoxFuture<'static, Result<()>>>>>;

pub(crate) fn erased<H: IoHandler>(io: Arc<Io>) -> BoxFuture<'static, Result<Option<BoxFuture<'static, Result<()>>>>> {
    Box::pin(async move {
        let claimed = H::claim(&io).await?;
        Ok(claimed.map(|work| Box::pin(async move { H::handle(&io, work).await }) as BoxFuture<'static, Result<()>>))
    })
}

/// Loops until the drain.
pub(crate) fn run(runtime: &Runtime, spec: &'static Spec, handler: ErasedPoll) {
    let Trigger::Poll(idle) = spec.trigger else { return };
    for _ in 0..spec.limits.concurrency {
        let runtime = runtime.clone();
        let tasks = runtime.tasks().clone();
        tasks.spawn(async move { work(&runtime, spec, handler, idle).await });
    }
}

async fn work(runtime: &Runtime, spec: &'static Spec, handler: ErasedPoll, idle: Duration) {
    let mut failures = 0_u32;
    let mut pause = Duration::ZERO;
    while rest(runtime, failures == 0, pause).await {
        (failures, pause) = match once(runtime, spec, handler).await {
            Ok(Progress::Worked) => {
                // Where one found something, another may as well.
                runtime.waker().heard_of_events();
                (0, Duration::ZERO)
            }
            Ok(Progress::Idle) => (0, backoff::jitter(idle)),
            Err(_) => (failures.saturating_add(1), backoff::pause(failures.saturating_add(1), idle, MAX_PAUSE)),
        };
    }
}

/// Waits `pause`, or less when a drain begins or, while all is well, when there are events. Returns whether to go on.
async fn rest(runtime: &Runtime, is_well: bool, pause: Duration) -> bool {
    if pause.is_zero() || !is_well {
        return runtime.tasks().pause(pause).await;
    }
    tokio::select! {
        goes_on = runtime.tasks().pause(pause) => goes_on,
        () = runtime.waker().events() => true,
    }
}

/// One run. Only one that found work is an invocation, so an idle loop fills no log.
async fn once(runtime: &Runtime, spec: &'static Spec, handler: ErasedPoll) -> Result<Progress> {
    let invocation = Invocation::start(spec.name, spec.limits.timeout);
    let io = Arc::new(Io::new(runtime, spec.trigger.pool_kind(), invocation.clone()));
    let claimed = bounded(invocation.remaining(), handler(io)).await;
    let work = match claimed {
        Ok(Some(work)) => work,
        Ok(None) => return Ok(Progress::Idle),
        Err(error) => {
            tracing::warn!(handler = spec.name, %error, "can't look for work");
            return Err(error);
        }
    };
    let left = invocation.remaining();
    invoke(runtime, spec, invocation, bounded(left, work)).await?;
    Ok(Progress::Worked)
}
