//! From what a handler returned to what becomes of its job.
use super::Verdict;
use crate::queue::{
    Kind, MAX_DEATHS,
    claim::Claimed,
    settle::{self, Failure, Fence, Keys},
    stop::Stop,
};
use crate::{
    Class, Error, Invocation, Result, Runtime, Tx,
    base::{backoff, error::Disposition, spec::PoolKind},
};
use std::time::Duration;

/// A statement on the queue that takes longer finds the database gone.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between tries to settle while the database does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The pause after PostgreSQL rolled back over a concurrent change.
const CONFLICT_PAUSE: Duration = Duration::from_millis(30);

/// A job that can't even be put off is left alone for this long by this worker.
const SHUNNED_FOR: Duration = Duration::from_mins(1);
/// And for this long where nobody reached the database: that is hardly the job's doing.
const SHUNNED_BRIEFLY: Duration = Duration::from_secs(1);

/// A handler that was asked to stop has this long; then it is dropped.
pub(super) const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// The outcome of a run.
#[derive(Debug)]
pub(super) enum JobOutcome {
    Done,
    Snooze(Duration),
    /// Another attempt has the job: nothing is to be said of this one.
    Lost,
    /// It failed. Given up, it is dead_lettered.
    Failed {
        failure: Failure,
        give_up: bool,
    },
}

/// Returns what a run came to that may have been asked to stop.
pub(super) fn judge_stoppable(result: Result<Verdict>, stop: &Stop) -> JobOutcome {
    if result.is_err() && stop.is_lost() { JobOutcome::Lost } else { judge(result) }
}

pub(super) fn judge(result: Result<Verdict>) -> JobOutcome {
    match result {
        Ok(Verdict::Done) => JobOutcome::Done,
        Ok(Verdict::Snooze(pause)) => JobOutcome::Snooze(pause),
        Ok(Verdict::Retry { after, why }) => {
            JobOutcome::Failed { failure: Failure { class: "retry", error: why, after }, give_up: false }
        }
        Ok(Verdict::Dead { why }) => {
            JobOutcome::Failed { failure: Failure { class: "dead", error: why, after: None }, give_up: true }
        }
        // Nobody's fault: no try is used up.
        Err(error) if error.is_transient_conflict() => JobOutcome::Snooze(backoff::jitter(CONFLICT_PAUSE)),
        Err(error) => {
            let give_up = error.class().disposition() == Disposition::GiveUp;
            let failure = Failure { class: error.class().name(), error: error.to_string(), after: None };
            JobOutcome::Failed { failure, give_up }
        }
    }
}

/// Returns what a handler that was asked to stop comes to.
pub(super) fn cancelled() -> Error {
    Error::new(Class::Refused, "the job was cancelled")
}

/// Puts the job off, or dead-letters it when that was its last try. Goes on trying while that may pass, up to a lease. Then,
/// and after whatever else goes wrong, it is counted against the job, which is put off.
///
/// # Errors
/// Those of a database that does not answer.
pub(super) async fn settle(
    runtime: &Runtime,
    kind: &Kind,
    job: &Claimed,
    fence: Fence,
    outcome: &JobOutcome,
) -> Result<()> {
    let until = tokio::time::Instant::now() + runtime.jobs().lease();
    let mut failures = 0;
    loop {
        match settle_once(runtime, kind, job, fence, outcome).await {
            Err(error) if !is_passing(&error) || tokio::time::Instant::now() >= until => {
                return step_aside(runtime, kind, job, fence, &error).await;
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(handler = kind.spec.name, job_id = %job.id, %error, "the job can't be settled yet");
                tokio::time::sleep(backoff::pause(failures, PAUSES.0, PAUSES.1)).await;
            }
            Ok(()) => {
                kind.load.progressed();
                return Ok(());
            }
        }
    }
}

/// Returns whether the same may work a little later.
fn is_passing(error: &Error) -> bool {
    error.is_transient_conflict() || error.class().disposition() == Disposition::RetryUntilItWorks
}

/// For others of the kind, who would wait for it without end.
async fn step_aside(runtime: &Runtime, kind: &Kind, job: &Claimed, fence: Fence, why: &Error) -> Result<()> {
    let (handler, job_id) = (kind.spec.name, job.id);
    tracing::error!(handler, %job_id, error = %why, "the job can't be settled: it is put off");
    let moved = async {
        let mut tx =
            Tx::begin(runtime.pools(), PoolKind::Jobs, Invocation::start(kind.spec.name, SETTLE_TIMEOUT)).await?;
        let is_moved = settle::step_aside(tx.conn(), job, fence).await?;
        tx.commit().await?;
        // Neither put off nor taken over: whatever its row says, it would be the first to be claimed again.
        if is_moved { Ok(()) } else { Err(Error::internal(anyhow::anyhow!("this attempt does not hold it"))) }
    };
    match moved.await {
        Err(error) if is_passing(&error) => {
            let is_away = error.class() == Class::Unavailable;
            kind.shun(job.id, if is_away { SHUNNED_BRIEFLY } else { SHUNNED_FOR });
            Err(error)
        }
        Err(error) => {
            tracing::error!(handler, %job_id, %error, "the job can't be put off: it is left alone");
            kind.shun(job.id, SHUNNED_FOR);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

async fn settle_once(runtime: &Runtime, kind: &Kind, job: &Claimed, fence: Fence, outcome: &JobOutcome) -> Result<()> {
    let mut tx = Tx::begin(runtime.pools(), PoolKind::Jobs, Invocation::start(kind.spec.name, SETTLE_TIMEOUT)).await?;
    let per_key = kind.per_key();
    let keys = Keys::of(kind.spec.name, per_key, &[job]);
    let mut unblocked = Vec::new();
    let held = match outcome {
        JobOutcome::Done | JobOutcome::Lost => false,
        JobOutcome::Snooze(pause) => {
            let token = if let Fence::Token(token) = fence { Some(token) } else { None };
            settle::snooze(tx.conn(), job.id, token, *pause).await?
        }
        JobOutcome::Failed { failure, give_up } if *give_up || job.attempts <= 1 => {
            tracing::error!(handler = kind.spec.name, job_id = %job.id, error = failure.error, "the job is dead");
            let dead_lettered = settle::dead_letter(tx.conn(), job, fence, failure, &keys).await?;
            let held = dead_lettered.is_some();
            unblocked = dead_lettered.unwrap_or_default();
            held
        }
        JobOutcome::Failed { failure, .. } => {
            settle::retry(tx.conn(), job, fence, failure, kind.queue.max_backoff).await?
        }
    };
    tx.commit().await?;
    kind.with_cursor(|cursor| cursor.unblocked(&unblocked));
    if !held {
        tracing::warn!(handler = kind.spec.name, job_id = %job.id, "the job was taken over by another worker");
    }
    Ok(())
}

/// Runs the handler until it ends, or until its time after being asked to stop is over.
pub(super) async fn stoppable(stop: &Stop, work: impl Future<Output = Result<Verdict>>) -> Result<Verdict> {
    let cancel = stop.asked();
    if cancel.is_cancelled() {
        return Err(cancelled());
    }
    let patience = async {
        cancel.cancelled().await;
        tokio::time::sleep(CANCEL_GRACE).await;
    };
    tokio::select! {
        result = work => match result {
            Ok(Verdict::Done) => Ok(Verdict::Done),
            _ if cancel.is_cancelled() => Err(cancelled()),
            other => other,
        },
        () = patience => Err(cancelled()),
    }
}

/// Returns what a job that killed too many workers comes to.
pub(super) fn poison() -> JobOutcome {
    let error = format!("{MAX_DEATHS} workers died while they ran it");
    JobOutcome::Failed { failure: Failure { class: "killer", error, after: None }, give_up: true }
}
