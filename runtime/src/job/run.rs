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
/// The other loops of a kind look this many times less often than the first.
const OTHERS_POLL: u32 = 4;
/// A statement on the queue that takes longer finds the database gone.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a broken database is left alone.
const BROKEN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Kind {
    spec: &'static Spec,
    handler: Erased,
}

/// Runs jobs of this kind until the drain: as many loops as its concurrency. Whoever finds a job wakes one more, so a busy
/// kind has all its loops at work. All of them poll, for the case that the first is held up by a slow job, but the others
/// less often, so an idle kind costs little.
pub(crate) fn run(runtime: &Runtime, spec: &'static Spec, handler: Erased) {
    let more = Arc::new(Notify::new());
    for index in 0..spec.limits.concurrency {
        let (runtime, more) = (runtime.clone(), more.clone());
        let poll = if index == 0 { POLL } else { POLL * OTHERS_POLL };
        let tasks = runtime.tasks().clone();
        tasks.spawn(async move { work(&runtime, Kind { spec, handler }, &more, poll).await });
    }
}

async fn work(runtime: &Runtime, kind: Kind, more: &Notify, poll: Duration) {
    let draining = runtime.tasks().draining().clone();
    while !draining.is_cancelled() {
        let pause = match run_all_due(runtime, kind, more).await {
            Ok(()) => idle_pause(runtime, kind.spec, poll).await,
            Err(error) => {
                tracing::warn!(handler = kind.spec.name, %error, "can't claim jobs");
                backoff::jitter(BROKEN)
            }
        };
        tokio::select! {
            _ = runtime.tasks().pause(pause) => {}
            () = more.notified() => {}
        }
    }
}

async fn run_all_due(runtime: &Runtime, kind: Kind, more: &Notify) -> Result<()> {
    while run_one(runtime, kind, more).await? && !runtime.tasks().draining().is_cancelled() {}
    Ok(())
}

/// Until the next job is due, at most a poll. Jitter keeps replicas from polling in step, but never makes a job late.
async fn idle_pause(runtime: &Runtime, spec: &Spec, poll: Duration) -> Duration {
    let poll = backoff::jitter(poll);
    let next = queue::until_next(&runtime.pools().transactions, spec.name);
    match bounded(QUEUE_TIMEOUT, next).await {
        Ok(Some(due_in)) => due_in.min(poll),
        _ => poll,
    }
}

/// Claims and runs one job. False when there was none.
async fn run_one(runtime: &Runtime, Kind { spec, handler }: Kind, more: &Notify) -> Result<bool> {
    let timeout = spec.limits.timeout;
    let mut tx = Tx::begin(&runtime.pools().transactions, Invocation::start(timeout)).await?;
    let Some(job) = bounded(QUEUE_TIMEOUT, queue::claim(&mut tx, spec.name)).await? else {
        tx.rollback().await;
        return Ok(false);
    };
    more.notify_one();
    let headers: Headers = job.headers.as_deref().and_then(|h| serde_json::from_slice(h).ok()).unwrap_or_default();
    let invocation = Invocation::continuing(headers.correlation_id.as_deref(), headers.traceparent.as_deref(), timeout);
    tx.adopt(invocation.clone());
    let done = invoke(runtime, spec, invocation.clone(), handle(spec, handler, tx, job.clone())).await;
    if let Err(error) = done {
        bounded(QUEUE_TIMEOUT, settle_failure(runtime, spec, &job, &invocation, &error)).await?;
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
