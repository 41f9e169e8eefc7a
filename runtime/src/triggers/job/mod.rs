//! Jobs on PostgreSQL, on the schema of the crate sqlxmq: a stock sqlxmq producer can enqueue to us. The claim, the
//! keep-alive and the completion are ours.
//!
//! A *`Tx`* handler's jobs are claimed with `FOR UPDATE SKIP LOCKED`, run and deleted in one transaction, many at a
//! time when they are short. The row's lock is lease and fence in one: a worker that dies frees it at once, one that is
//! frozen can't commit. `lanes` runs them.
//!
//! An *`Io`* handler's jobs are leased: the claim writes an attempt token and a time, a keep-alive renews it, and only
//! the holder of the token may complete the job. `leased` runs them.
//!
//! Either way a job whose worker died is found and runs again, and one that kills three workers is dead-lettered. A failed try
//! is counted and put off; out of tries, the job moves to `dead_jobs` with the errors of its tries. Only registered
//! kinds are claimed: those of a newer version wait for it.
//!
//! How a worker knows that there is work: `wake` is told after a commit and tells the others by a debounced NOTIFY; the
//! `poller` polls, and sleeps until the next job is due. What is lost on the way costs a poll.

mod attempt;
mod batched;
mod erased;
mod exhausted;
mod failure;
mod handler;
mod heartbeat;
mod lane;
mod lanes;
mod leased;
mod poller;
mod queues;
mod run;
mod turn;

pub use crate::queue::{
    COUNTED, DRAIN_WITHIN, Depth, Enqueued, Job, MAX_DEATHS, MAX_ERRORS, MAX_KEY_BYTES, Options, Priority, Unique,
    forget_dead, inspect, ops,
};
pub use attempt::Attempt;
pub use handler::{BatchHandler, IoHandler, TxHandler, Verdict, spec};
pub use lane::BATCH_WINDOW;
pub use queues::{depth, depths};

pub(crate) use erased::{Handler, by_io, by_tx, by_tx_batch};
pub(crate) use queues::depths_of_all;

use crate::{Runtime, base::spec::Spec};
use erased::ErasedJob;
use lane::Handle;

/// Starts what all kinds of jobs share.
pub(crate) fn start(runtime: &Runtime) {
    heartbeat::run(runtime);
    poller::run(runtime);
    exhausted::run(runtime);
}

/// Runs jobs of this kind until the drain.
pub(crate) fn run(runtime: &Runtime, spec: &'static Spec, handler: Handler) {
    let Some(kind) = runtime.jobs().start(spec, handler.per_key) else { return };
    match handler.erased {
        ErasedJob::Tx(each) => lanes::run(runtime, &kind, Handle::Each(each)),
        ErasedJob::TxBatch(all) => lanes::run(runtime, &kind, Handle::All(all)),
        ErasedJob::Io(handle) => leased::run(runtime, &kind, handle),
    }
}
