//! Jobs on PostgreSQL, on the schema of the crate sqlxmq: a stock sqlxmq producer can enqueue to us. The claim, the
//! keep-alive and the completion are ours.
//!
//! A *`Tx`* handler's jobs are claimed with `FOR UPDATE SKIP LOCKED`, run and deleted in one transaction, many at a time
//! when they are short. The row's lock is lease and fence in one: a worker that dies frees it at once, one that is frozen
//! can't commit. `lanes` runs them.
//!
//! An *`Io`* handler's jobs are leased: the claim writes an attempt token and a time, a keep-alive renews it, and only the
//! holder of the token may complete the job. `leased` runs them.
//!
//! Either way a job whose worker died is found and runs again, and one that kills three workers is buried. A failed try is
//! counted and put off; out of tries, the job moves to `dead_jobs` with the errors of its tries. Only registered kinds are
//! claimed: those of a newer version wait for it.
//!
//! How a worker knows that there is work: `wake` is told after a commit and tells the others by a debounced NOTIFY; the
//! `scout` polls, and sleeps until the next job is due. What is lost on the way costs a poll.

mod attempt;
mod batched;
mod claim;
mod depth;
mod engine;
mod enqueue;
mod exhausted;
mod failure;
mod lanes;
mod leased;
mod limit;
mod run;
mod scout;
mod settle;
pub(crate) mod step;
mod stop;
mod upkeep;
mod wake;

pub mod inspect;
pub mod ops;

pub(crate) use depth::of_all as depths_of_all;
pub(crate) use engine::{Engine, Kind};
pub(crate) use enqueue::{enqueue, enqueue_many};
pub(crate) use wake::{LOOKAHEAD, Waker};
pub use {
    attempt::Attempt,
    depth::{COUNTED, DRAIN_WITHIN, Depth, depth, depths},
    enqueue::{Enqueued, Options, Priority, Unique},
    lanes::BATCH_WINDOW,
    ops::forget_dead,
};

use crate::{Error, Member, Result, Runtime, Tx, batch::Verdicts, spec::Spec};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};

/// The first pause after a failed try; it doubles up to the queue's [`max_backoff`](crate::spec::Queue::max_backoff).
/// A producer with the crate sqlxmq chooses its own.
pub(crate) const BASE_BACKOFF: Duration = Duration::from_millis(200);
/// A job that was running when this many workers died is buried.
pub const MAX_DEATHS: i32 = 3;
/// Errors kept of one job, the newest.
pub const MAX_ERRORS: usize = 20;
/// The longest key of a job, in bytes.
pub const MAX_KEY_BYTES: usize = 200;

/// A kind of job, as whoever enqueues it knows it: its arguments, kept as JSON. Fields are only ever added.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind: the name of the handler that runs it. Never renamed.
    const KIND: &'static str;
    /// Tries after the first.
    const RETRIES: u32;
    /// How many jobs with the same [`key`](Job::key) may run at once; with 1 they run one after another in the order in
    /// which they were enqueued, and one that waits for its next try holds up those behind it. No limit where none.
    const PER_KEY: Option<u32> = None;

    /// What the job is about, such as an account, where [`PER_KEY`](Job::PER_KEY) is set.
    fn key(&self) -> String {
        String::new()
    }
}

/// What becomes of a job whose handler returned. An error's class decides otherwise: what can't work is dead, the rest is
/// retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done: what it did is committed and the job is gone.
    Done,
    /// Not yet, and this try counts as failed: nothing that it did stays. The pause is the usual backoff where none is given.
    Retry {
        /// When to try again.
        after: Option<Duration>,
        /// For the job's history.
        why: String,
    },
    /// Later: what it did so far is committed, and no try is used up.
    Snooze(Duration),
    /// Never: nothing that it did stays, and the job is buried.
    Dead {
        /// For the job's history.
        why: String,
    },
}

/// Runs one kind of job, with pure database effects.
pub trait TxHandler: Send + Sync + 'static {
    /// Name, [`Trigger::Job`](crate::spec::Trigger::Job) and limits. The name is the job's kind and the retries are the
    /// job's.
    const SPEC: &'static Spec;
    /// What it runs.
    type Job: Job;

    /// Does it. Runs again after a failure, and possibly because another job of its batch failed.
    fn handle(tx: &mut Tx, job: &Self::Job) -> impl Future<Output = Result<Verdict>> + Send;
}

/// Runs many jobs of one kind at a time, with pure database effects: all of a claim in one transaction.
pub trait BatchHandler: Send + Sync + 'static {
    /// Name, [`Trigger::Job`](crate::spec::Trigger::Job) and limits. The name is the job's kind and the retries are the
    /// job's; the queue's batch is how many are run at most.
    const SPEC: &'static Spec;
    /// What it runs.
    type Job: Job;

    /// Does them: one verdict each, in their order. One that failed, or is to be retried or buried, must have had no
    /// effect. Runs again with fewer of them when one makes it fail.
    fn handle(tx: &mut Tx, batch: &[Member<Self::Job>]) -> impl Future<Output = Result<Verdicts<Verdict>>> + Send;
}

/// Runs one kind of job, with effects outside the database, which it makes idempotent itself.
pub trait IoHandler: Send + Sync + 'static {
    /// Name, [`Trigger::Job`](crate::spec::Trigger::Job) and limits. The name is the job's kind and the retries are the
    /// job's.
    const SPEC: &'static Spec;
    /// What it runs.
    type Job: Job;

    /// Does it. Runs again after a failure or a crash. To commit database effects and the completion together, see
    /// [`Attempt::complete`].
    fn handle(attempt: &Attempt, job: &Self::Job) -> impl Future<Output = Result<Verdict>> + Send;
}

/// A handler with its types forgotten, so that the loops are compiled once. It reads the arguments from JSON.
#[derive(Clone, Copy)]
pub(crate) enum Erased {
    Tx(for<'a> fn(&'a mut Tx, &'a str) -> BoxFuture<'a, Result<Verdict>>),
    TxBatch(batched::Handle),
    Io(fn(Arc<Attempt>, String) -> BoxFuture<'static, Result<Verdict>>),
}

/// A handler and what the loops must know of its kind of job.
#[derive(Clone, Copy)]
pub(crate) struct Handler {
    pub(crate) erased: Erased,
    pub(crate) per_key: Option<u32>,
}

pub(crate) fn by_tx<H: TxHandler>() -> Handler {
    fn call<'a, H: TxHandler>(tx: &'a mut Tx, args: &'a str) -> BoxFuture<'a, Result<Verdict>> {
        Box::pin(async move { H::handle(tx, &read::<H::Job>(args)?).await })
    }
    Handler { erased: Erased::Tx(call::<H>), per_key: H::Job::PER_KEY }
}

pub(crate) fn by_tx_batch<H: BatchHandler>() -> Handler {
    Handler { erased: Erased::TxBatch(batched::call::<H>), per_key: H::Job::PER_KEY }
}

pub(crate) fn by_io<H: IoHandler>() -> Handler {
    fn call<H: IoHandler>(attempt: Arc<Attempt>, args: String) -> BoxFuture<'static, Result<Verdict>> {
        Box::pin(async move { H::handle(&attempt, &read::<H::Job>(&args)?).await })
    }
    Handler { erased: Erased::Io(call::<H>), per_key: H::Job::PER_KEY }
}

fn read<J: Job>(args: &str) -> Result<J> {
    serde_json::from_str(args).map_err(|error| Error::invalid(format!("the job's arguments can't be read: {error}")))
}

/// Starts what all kinds of jobs share.
pub(crate) fn start(runtime: &Runtime) {
    upkeep::run(runtime);
    scout::run(runtime);
    exhausted::run(runtime);
}

/// Runs jobs of this kind until the drain.
pub(crate) fn run(runtime: &Runtime, spec: &'static Spec, handler: Handler) {
    let Some(kind) = runtime.jobs().start(spec, handler) else { return };
    match handler.erased {
        Erased::Tx(_) | Erased::TxBatch(_) => lanes::run(runtime, &kind),
        Erased::Io(_) => leased::run(runtime, &kind),
    }
}

/// What travels beside the arguments, in the payload's bytes: a producer that knows nothing of it leaves it out.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Headers {
    pub(crate) correlation_id: Option<String>,
    pub(crate) traceparent: Option<String>,
}

impl Headers {
    pub(crate) fn read(bytes: Option<&[u8]>) -> Self {
        bytes.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    }
}
