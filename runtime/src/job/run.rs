//! The loops that run one kind of job.
use super::{Erased, Headers, queue};
use crate::{
    Error, Invocation, Result, Runtime, Tx, backoff, error::Disposition, fault, invoke::invoke, spec::Spec, tx::bounded,
};
use queue::Claimed;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// How long an idle kind goes without looking. A job due sooner, and known, is taken on time.
const POLL: Duration = Duration::from_millis(100);
/// How long a broken database is left alone.
const BROKEN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Kind {
    spec: &'static Spec,
    handler: Erased,
}

/// Runs jobs of this kind until the drain: as many loops as its concurrency. Only the first polls; whoever finds a job
/// wakes one more, so an idle kind costs one query per poll and a busy one has all its loops at work.
pub(crate) fn run(runtime: &Runtime, spec: &'static Spec, handler: Erased) {
    let more = Arc::new(Notify::new());
    for index in 0..spec.limits.concurrency {
        let (runtime, more) = (runtime.clone(), more.clone());
        let tasks = runtime.tasks().clone();
        tasks.spawn(async move { work(&runtime, Kind { spec, handler }, &more, index == 0).await });
    }
}

async fn work(runtime: &Runtime, kind: Kind, more: &Notify, polls: bool) {
    let draining = runtime.tasks().draining().clone();
    while !draining.is_cancelled() {
        if !polls {
            tokio::select! {
                () = draining.cancelled() => return,
                () = more.notified() => {}
            }
        }
        loop {
            match run_one(runtime, kind, more).await {
                Ok(true) if !draining.is_cancelled() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(handler = kind.spec.name, %error, "can't claim jobs");
                    runtime.tasks().pause(backoff::jitter(BROKEN)).await;
                    break;
                }
            }
        }
        if polls {
            runtime.tasks().pause(idle_pause(runtime, kind.spec).await).await;
        }
    }
}

/// Until the next job is due, at most a poll. Jitter keeps replicas from polling in step, but never makes a job late.
async fn idle_pause(runtime: &Runtime, spec: &Spec) -> Duration {
    let poll = backoff::jitter(POLL);
    match queue::until_next(&runtime.pools().transactions, spec.name).await {
        Ok(Some(due_in)) => due_in.min(poll),
        _ => poll,
    }
}

/// Claims and runs one job. False when there was none.
async fn run_one(runtime: &Runtime, Kind { spec, handler }: Kind, more: &Notify) -> Result<bool> {
    let timeout = spec.limits.timeout;
    let mut tx = Tx::begin(&runtime.pools().transactions, Invocation::start(timeout)).await?;
    let Some(job) = queue::claim(&mut tx, spec.name).await? else {
        tx.rollback().await;
        return Ok(false);
    };
    more.notify_one();
    let headers: Headers = job.headers.as_deref().and_then(|h| serde_json::from_slice(h).ok()).unwrap_or_default();
    let invocation = Invocation::continuing(headers.correlation_id.as_deref(), headers.traceparent.as_deref(), timeout);
    tx.adopt(invocation.clone());
    let done = invoke(runtime, spec, invocation.clone(), handle(spec, handler, tx, job.clone())).await;
    if let Err(error) = done {
        settle_failure(runtime, spec, &job, &invocation, &error).await?;
    }
    Ok(true)
}

async fn handle(spec: &'static Spec, handler: Erased, mut tx: Tx, job: Claimed) -> Result<()> {
    fault::point(spec.name, "after_claim");
    if let Err(error) = work_and_complete(handler, &mut tx, job).await {
        return Err(tx.fail(error).await);
    }
    fault::point(spec.name, "before_commit");
    tx.commit().await?;
    fault::point(spec.name, "after_commit");
    Ok(())
}

async fn work_and_complete(handler: Erased, tx: &mut Tx, job: Claimed) -> Result<()> {
    let left = tx.invocation().remaining();
    bounded(left, handler(tx, job.args.unwrap_or_default())).await?;
    queue::complete(tx, job.id).await
}

async fn settle_failure(
    runtime: &Runtime,
    spec: &Spec,
    job: &Claimed,
    invocation: &Invocation,
    error: &Error,
) -> Result<()> {
    let pool = &runtime.pools().transactions;
    let allowed = i32::try_from(spec.limits.retries).unwrap_or(i32::MAX).saturating_add(1);
    let tried = allowed.saturating_sub(job.attempts).saturating_add(1).max(1);
    let last_try = job.attempts <= 1 || error.class().disposition() == Disposition::GiveUp;
    if last_try {
        tracing::error!(handler = spec.name, job_id = %job.id, %error, "the job is dead");
        return queue::bury(pool, job, spec.name, &invocation.correlation_id, tried, &error.to_string()).await;
    }
    queue::retry_later(pool, job, u32::try_from(tried).unwrap_or(1)).await
}
