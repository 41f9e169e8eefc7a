//! What a handler of jobs is.
use super::Attempt;
use crate::{
    Member, Result, Tx,
    base::{
        batch::Verdicts,
        spec::{Limits, Queue, Spec, Trigger},
    },
    queue::payload::Job,
};
use std::time::Duration;

/// The spec of the handler that runs these jobs: name and retries are the job's.
pub const fn spec<J: Job>(queue: Queue) -> Spec {
    Spec::new(J::KIND, Trigger::Job(queue)).limits(Limits::DEFAULT.retries(J::RETRIES))
}

/// The fate of a job whose handler returned. An error's class decides otherwise: what can't work is dead, the rest
/// is retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done: what it did is committed and the job is gone.
    Done,
    /// Not yet, and this try counts as failed: nothing that it did stays. The pause is the usual backoff where none is
    /// given.
    Retry {
        /// When to try again.
        after: Option<Duration>,
        /// For the job's history.
        why: String,
    },
    /// Later: what it did so far is committed, and no try is used up.
    Snooze(Duration),
    /// Never: nothing that it did stays, and the job is dead-lettered.
    Dead {
        /// For the job's history.
        why: String,
    },
}

/// Runs one kind of job, with pure database effects.
pub trait TxHandler: Send + Sync + 'static {
    /// Name, [`Trigger::Job`](crate::base::spec::Trigger::Job) and limits. The name is the job's kind and the retries
    /// are the job's.
    const SPEC: &'static Spec;
    /// What it runs.
    type Job: Job;

    /// Does it. Runs again after a failure, and possibly because another job of its batch failed.
    fn handle(tx: &mut Tx, job: &Self::Job) -> impl Future<Output = Result<Verdict>> + Send;
}

/// Runs many jobs of one kind at a time, with pure database effects: all of a claim in one transaction.
pub trait BatchHandler: Send + Sync + 'static {
    /// Name, [`Trigger::Job`](crate::base::spec::Trigger::Job) and limits. The name is the job's kind and the retries
    /// are the job's; the queue's batch is how many are run at most.
    const SPEC: &'static Spec;
    /// What it runs.
    type Job: Job;

    /// Does them: one verdict each, in their order. One that failed, or is to be retried or dead-lettered, must have had no
    /// effect. Runs again with fewer of them when one makes it fail.
    fn handle(tx: &mut Tx, batch: &[Member<Self::Job>]) -> impl Future<Output = Result<Verdicts<Verdict>>> + Send;
}

/// Runs one kind of job, with effects outside the database, which it makes idempotent itself.
pub trait IoHandler: Send + Sync + 'static {
    /// Name, [`Trigger::Job`](crate::base::spec::Trigger::Job) and limits. The name is the job's kind and the retries
    /// are the job's.
    const SPEC: &'static Spec;
    /// What it runs.
    type Job: Job;

    /// Does it. Runs again after a failure or a crash. To commit database effects and the completion together, see
    /// [`Attempt::complete`].
    fn handle(attempt: &Attempt, job: &Self::Job) -> impl Future<Output = Result<Verdict>> + Send;
}
