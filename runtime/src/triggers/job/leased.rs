//! Running `Io` jobs: leased to an attempt, run outside any transaction, completed by whoever still holds the lease.
//!
//! One fetcher per kind claims as many as can begin soon, into memory; each runs in a task of its own. What is done is
//! handed to one completer per kind, which deletes many in one statement and outlives the drain. A lease is kept alive
//! until its completion is durable.
use super::{
    Attempt, Verdict,
    failure::{self, JobOutcome, judge_stoppable, poison, stoppable},
    turn::{BROKEN, FULL, QUEUE_TIMEOUT, SPANS, Turn},
};
use crate::queue::{
    Headers, Kind, MAX_DEATHS,
    claim::{self, Claimed},
    limit::{self, Slot, Slots},
    settle::{self, Fence, Keys},
    stop::Stop,
};
use crate::{
    Invocation, Io, Result, Runtime, Tx,
    base::{
        backoff, failpoint, ids,
        spec::{Durability, PoolKind},
    },
    context::invoke,
    postgres::tx::bounded,
};
use futures_util::future::BoxFuture;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What was claimed ahead should have begun within this time, or less is claimed ahead.
const AHEAD_WINDOW: Duration = Duration::from_millis(20);

pub(super) type RunAttempt = fn(Arc<Attempt>, String) -> BoxFuture<'static, Result<Verdict>>;

/// A job on its way through this process.
struct Leased {
    job: Claimed,
    token: Uuid,
}

/// What every task of a kind needs.
#[derive(Clone)]
struct Shared {
    runtime: Runtime,
    kind: Arc<Kind>,
    handle: RunAttempt,
    per_key: Option<u32>,
    permits: Arc<Semaphore>,
    /// One job at a time that killed a worker, so that the next death can be laid to one.
    poison: Arc<Semaphore>,
    slots: Option<Arc<Mutex<Slots>>>,
    completer: mpsc::Sender<Leased>,
}

pub(super) fn run(runtime: &Runtime, kind: &Arc<Kind>, handle: RunAttempt) {
    let (completer, finished) = mpsc::channel(kind.queue.batch * 2);
    let slots = kind
        .queue
        .across
        .map(|across| Arc::new(Mutex::new(Slots::new(runtime.pools().connector.clone(), kind.spec.name, across))));
    let shared = Shared {
        runtime: runtime.clone(),
        kind: kind.clone(),
        handle,
        per_key: kind.per_key(),
        permits: Arc::new(Semaphore::new(kind.spec.limits.concurrency)),
        poison: Arc::new(Semaphore::new(1)),
        slots,
        completer,
    };
    let (inner, of, per_key) = (runtime.clone(), kind.clone(), kind.per_key());
    runtime.tasks().spawn(async move { complete_all(&inner, &of, per_key, finished).await });
    runtime.tasks().spawn(async move { fetch(shared).await });
}

async fn fetch(shared: Shared) {
    let draining = shared.runtime.tasks().draining().clone();
    let mut ahead = 0;
    tokio::select! {
        () = shared.runtime.jobs().signed_on().cancelled() => {}
        () = draining.cancelled() => return,
    }
    while !draining.is_cancelled() {
        let pause = match turn(&shared, &mut ahead, &draining).await {
            Ok(Turn::Ran) => continue,
            Ok(Turn::Idle) => {
                shared.runtime.jobs().rescan().notify_one();
                None
            }
            Ok(Turn::Wait(pause)) => Some(pause),
            Err(error) => {
                tracing::warn!(handler = shared.kind.spec.name, %error, "can't claim jobs");
                Some(backoff::jitter(BROKEN))
            }
        };
        tokio::select! {
            () = draining.cancelled() => {}
            () = shared.kind.due.notified(), if pause.is_none() => {}
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

/// Claims once, and begins everything that was claimed.
async fn turn(shared: &Shared, ahead: &mut usize, draining: &CancellationToken) -> Result<Turn> {
    let (kind, queue) = (&shared.kind, &shared.kind.queue);
    tokio::select! {
        permit = shared.permits.acquire() => drop(permit),
        () = draining.cancelled() => return Ok(Turn::Ran),
    }
    let free = shared.permits.available_permits().max(1);
    let mut want = (free + *ahead).min(queue.batch);
    let pool = &shared.runtime.pools().bookkeeping;
    if let Some(rate) = queue.rate {
        want = bounded(QUEUE_TIMEOUT, limit::take_tokens(pool, kind.spec.name, rate, want)).await?;
        if want == 0 {
            return Ok(Turn::Wait(limit::until_token(rate)));
        }
    }
    let slots = take_slots(shared, want).await?;
    let tokens = want;
    want = slots.as_ref().map_or(want, Vec::len);
    let token = ids::random();
    let claimed = if want == 0 { Ok(Vec::new()) } else { bounded(QUEUE_TIMEOUT, lease(shared, want, token)).await };
    if let Err(error) = &claimed {
        kind.with_cursor(|cursor| cursor.failed(error));
    }
    let used = claimed.as_ref().map_or(0, Vec::len);
    free_slots(shared, slots.as_ref().map(|slots| slots[used..].to_vec())).await;
    if queue.rate.is_some() {
        let returned = bounded(QUEUE_TIMEOUT, limit::return_tokens(pool, kind.spec.name, tokens - used)).await;
        if let Err(error) = returned {
            tracing::warn!(handler = kind.spec.name, %error, "tokens can't be given back; fewer jobs begin for a while");
        }
    }
    let claimed = claimed?;
    if claimed.is_empty() {
        return Ok(if want == 0 { Turn::Wait(FULL) } else { Turn::Idle });
    }
    let began = Instant::now();
    let count = claimed.len();
    begin_all(shared, claimed, token, slots, draining).await;
    *ahead = if began.elapsed() > AHEAD_WINDOW {
        *ahead / 2
    } else if count == want {
        (*ahead * 2 + SPANS).min(queue.batch)
    } else {
        *ahead
    };
    Ok(Turn::Ran)
}

/// The lease needs no flush: lost with a crash of the database, it only means that the job is claimed again.
async fn lease(shared: &Shared, want: usize, token: Uuid) -> Result<Vec<Claimed>> {
    let mut tx =
        Tx::begin(shared.runtime.pools(), PoolKind::Jobs, Invocation::start(shared.kind.spec.name, QUEUE_TIMEOUT))
            .await?;
    sqlx::query("SET LOCAL synchronous_commit = off").execute(tx.conn()).await?;
    let (from, began) = (shared.kind.with_cursor(|cursor| cursor.from()), Instant::now());
    let life = shared.runtime.jobs().lease();
    let claimed =
        claim::lease(tx.conn(), shared.kind.spec.name, &from, (want, &shared.kind.shunned()), (token, life)).await?;
    if claimed.is_empty() {
        tx.rollback().await;
    } else {
        tx.commit().await?;
    }
    shared.kind.with_cursor(|cursor| cursor.advance(&from, &claimed, began.elapsed()));
    Ok(claimed)
}

async fn take_slots(shared: &Shared, want: usize) -> Result<Option<Vec<Slot>>> {
    let Some(slots) = &shared.slots else { return Ok(None) };
    let mut slots = slots.lock().await;
    Ok(Some(bounded(QUEUE_TIMEOUT, slots.take(want)).await?))
}

async fn free_slots(shared: &Shared, taken: Option<Vec<Slot>>) {
    if let (Some(slots), Some(taken)) = (&shared.slots, taken.filter(|taken| !taken.is_empty())) {
        slots.lock().await.free(&taken).await;
    }
}

/// Begins each as soon as there is room. What has not begun when the drain comes is given back.
async fn begin_all(
    shared: &Shared,
    claimed: Vec<Claimed>,
    token: Uuid,
    slots: Option<Vec<Slot>>,
    draining: &CancellationToken,
) {
    let ids: Vec<Uuid> = claimed.iter().map(|job| job.id).collect();
    let stops = shared.runtime.jobs().hold(ids.iter().copied(), Some(token));
    let quiet = claimed.len() > SPANS;
    for (index, (job, stop)) in claimed.into_iter().zip(stops).enumerate() {
        let permit = tokio::select! {
            permit = shared.permits.clone().acquire_owned() => permit.ok(),
            () = draining.cancelled() => None,
        };
        let slot = slots.as_ref().and_then(|slots| slots.get(index)).copied();
        let Some(permit) = permit else {
            give_back(shared, &ids[index..], token).await;
            return free_slots(shared, slots.map(|slots| slots[index..].to_vec())).await;
        };
        let shared = shared.clone();
        let tasks = shared.runtime.tasks().clone();
        tasks.spawn(async move {
            run_one(&shared, Leased { job, token }, &stop, permit, quiet).await;
            free_slots(&shared, slot.map(|slot| vec![slot])).await;
        });
    }
}

async fn give_back(shared: &Shared, ids: &[Uuid], token: Uuid) {
    let released = async {
        let mut tx =
            Tx::begin(shared.runtime.pools(), PoolKind::Jobs, Invocation::start(shared.kind.spec.name, QUEUE_TIMEOUT))
                .await?;
        settle::release(tx.conn(), ids, token).await?;
        tx.commit().await
    };
    if let Err(error) = bounded(QUEUE_TIMEOUT, released).await {
        tracing::warn!(handler = shared.kind.spec.name, %error, "leases can't be given back; they run out");
    }
    shared.runtime.jobs().forget_leased(ids, token);
}

async fn run_one(shared: &Shared, leased: Leased, stop: &Stop, permit: OwnedSemaphorePermit, quiet: bool) {
    let (runtime, kind, job, fence) = (&shared.runtime, &shared.kind, &leased.job, Fence::Token(leased.token));
    let forget = || runtime.jobs().forget_leased(&[job.id], leased.token);
    let (permit, _alone) = if job.deaths > 0 {
        // Others go on meanwhile.
        drop(permit);
        let alone = shared.poison.clone().acquire_owned().await.ok();
        (shared.permits.clone().acquire_owned().await.ok(), alone)
    } else {
        (Some(permit), None)
    };
    if (1..MAX_DEATHS).contains(&job.deaths) && !begins_alone(shared, &leased).await {
        return forget();
    }
    kind.load.running.fetch_add(1, Ordering::Relaxed);
    let began = Instant::now();
    let (outcome, completed) =
        if job.deaths >= MAX_DEATHS { (poison(), false) } else { handle(shared, &leased, stop, quiet).await };
    kind.load.running.fetch_sub(1, Ordering::Relaxed);
    kind.load.ran(1, began.elapsed());
    if completed || matches!(outcome, JobOutcome::Done) {
        runtime.metrics().done(kind.spec.name, [job.attempt_at].into_iter());
    }
    if completed {
        wake_next(shared);
        return forget();
    }
    failpoint::hit(kind.spec.name, "before_complete");
    match (&outcome, kind.queue.durability) {
        (JobOutcome::Done, Durability::Inline) => complete(runtime, kind, shared.per_key, &[leased]).await,
        (JobOutcome::Done, _) => {
            drop(permit);
            let _ = shared.completer.send(leased).await;
        }
        _ => {
            if let Err(error) = failure::settle(runtime, kind, job, fence, &outcome).await {
                tracing::error!(handler = kind.spec.name, job_id = %job.id, %error, "the job is left to its lease's end");
            }
            forget();
            kind.with_cursor(|cursor| cursor.put_back([job]));
            wake_next(shared);
            // For the next try's due time.
            runtime.jobs().rescan().notify_one();
        }
    }
}

/// The next job of a key may have been unblocked.
fn wake_next(shared: &Shared) {
    if shared.per_key.is_some() {
        shared.kind.wake();
    }
}

/// Counts the death that this run of a poison job may end in. False when it must not run: another attempt has it, or
/// the database does not answer.
async fn begins_alone(shared: &Shared, leased: &Leased) -> bool {
    let count = async {
        let mut conn = shared.runtime.pools().bookkeeping.acquire().await?;
        settle::begin_alone(&mut conn, leased.job.id, leased.token).await
    };
    let begun = bounded(QUEUE_TIMEOUT, count).await;
    if let Err(error) = &begun {
        tracing::warn!(handler = shared.kind.spec.name, job_id = %leased.job.id, %error, "a poison job is left to its lease's end");
    }
    begun.unwrap_or(false)
}

/// Runs the handler; also says whether it has completed the job itself.
async fn handle(shared: &Shared, leased: &Leased, stop: &Stop, quiet: bool) -> (JobOutcome, bool) {
    let (spec, job) = (shared.kind.spec, &leased.job);
    failpoint::hit(spec.name, "after_claim");
    let headers = Headers::read(job.headers.as_deref());
    let (correlation_id, traceparent) = (headers.correlation_id.as_deref(), headers.traceparent.as_deref());
    let invocation = Invocation::continuing(spec.name, correlation_id, traceparent, spec.limits.timeout)
        .cancelled_by(stop.asked().clone());
    let attempt = Arc::new(Attempt::new(
        Io::new(&shared.runtime, PoolKind::Jobs, invocation.clone()),
        leased.token,
        job,
        (spec.name, shared.per_key),
    ));
    let args = job.args.clone().unwrap_or_else(|| "null".to_owned());
    let work = stoppable(stop, (shared.handle)(attempt.clone(), args));
    let finished = invoke::observed(&shared.runtime, spec, &invocation, quiet, work).await;
    (judge_stoppable(finished.result, stop), attempt.is_completed())
}

/// Completes what is handed over until nobody is left who could hand anything over.
async fn complete_all(runtime: &Runtime, kind: &Kind, per_key: Option<u32>, mut finished: mpsc::Receiver<Leased>) {
    let Durability::Group(gather) = kind.queue.durability else { return };
    let most = kind.queue.batch;
    let mut group = Vec::with_capacity(most);
    while finished.recv_many(&mut group, most).await > 0 {
        let until = tokio::time::Instant::now() + gather;
        while group.len() < most {
            let room = most - group.len();
            match tokio::time::timeout_at(until, finished.recv_many(&mut group, room)).await {
                Ok(more) if more > 0 => {}
                _ => break,
            }
        }
        complete(runtime, kind, per_key, &group).await;
        group.clear();
    }
}

/// Completes these, trying again while the database does not answer, for as long as a lease without renewal would hold.
async fn complete(runtime: &Runtime, kind: &Kind, per_key: Option<u32>, group: &[Leased]) {
    let until = Instant::now() + runtime.jobs().lease() * 2;
    let mut failures = 0;
    loop {
        match complete_once(runtime, kind, per_key, group).await {
            Ok(completed) => {
                let lost = group.len() - completed;
                if lost > 0 {
                    tracing::warn!(
                        handler = kind.spec.name,
                        lost,
                        "completed jobs had been taken over by other attempts"
                    );
                }
                break;
            }
            Err(error) if Instant::now() > until => {
                tracing::error!(handler = kind.spec.name, jobs = group.len(), %error, "completions are lost; the jobs run again");
                break;
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(handler = kind.spec.name, %error, "completions can't be written yet");
                tokio::time::sleep(backoff::pause(failures, Duration::from_millis(20), BROKEN)).await;
            }
        }
    }
    for leased in group {
        runtime.jobs().forget_leased(&[leased.job.id], leased.token);
    }
    if per_key.is_some() {
        kind.wake();
    }
    failpoint::hit(kind.spec.name, "after_complete");
}

/// Returns how many of them were completed.
async fn complete_once(runtime: &Runtime, kind: &Kind, per_key: Option<u32>, group: &[Leased]) -> Result<usize> {
    let jobs: Vec<&Claimed> = group.iter().map(|leased| &leased.job).collect();
    let tokens: Vec<Uuid> = group.iter().map(|leased| leased.token).collect();
    let keys = Keys::of(kind.spec.name, per_key, &jobs);
    let mut tx = Tx::begin(runtime.pools(), PoolKind::Jobs, Invocation::start(kind.spec.name, QUEUE_TIMEOUT)).await?;
    let (deleted, unblocked) = settle::complete_leased(tx.conn(), &jobs, &tokens, &keys).await?;
    tx.commit().await?;
    kind.with_cursor(|cursor| cursor.unblocked(&unblocked));
    Ok(deleted)
}
