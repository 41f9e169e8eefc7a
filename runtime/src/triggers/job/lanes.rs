//! Running `Tx` jobs: claimed, run and deleted in one transaction.
//!
//! A lane takes a batch, runs one job after another on the same transaction and commits them together, for as long as
//! that takes less than [`BATCH_WINDOW`]; the rest of the batch is let go untouched. When a job of a batch fails,
//! nothing of the batch stays, and its jobs run again one by one, so that each failure is its own.
//!
//! A transaction leaves nothing behind when its worker dies. So that a job which kills its process is recognised, a
//! lane writes down what it is about to run, in an unlogged table and a transaction of its own.
use super::{
    failure::{self, poison},
    lane::{BATCH_WINDOW, Handle, JobLane},
    run::Batch,
    turn::{BROKEN, FULL, QUEUE_TIMEOUT, Turn},
};
use crate::queue::{
    Kind, MAX_DEATHS,
    claim::{self, Claimed},
    limit,
    settle::Fence,
    stop::Stop,
};
use crate::{
    Invocation, Result, Runtime, Tx,
    base::{backoff, spec::PoolKind},
    postgres::tx::bounded,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The first batch; it doubles as long as whole batches fit into the window.
const FIRST_BATCH: usize = 16;
/// Starts as many lanes as the kind's concurrency. Whoever finds a full batch wakes one more.
pub(super) fn run(runtime: &Runtime, kind: &Arc<Kind>, handle: Handle) {
    for index in 0..kind.spec.limits.concurrency {
        let mut lane = JobLane {
            runtime: runtime.clone(),
            kind: kind.clone(),
            handle,
            per_key: kind.per_key(),
            index,
            size: FIRST_BATCH.min(kind.queue.batch),
        };
        runtime.tasks().spawn(async move { lane.work().await });
    }
}

impl JobLane {
    async fn work(&mut self) {
        let draining = self.runtime.tasks().draining().clone();
        tokio::select! {
            () = self.runtime.jobs().signed_on().cancelled() => {}
            () = draining.cancelled() => return,
        }
        while !draining.is_cancelled() {
            let wait = match self.turn().await {
                Ok(Turn::Ran) => continue,
                Ok(Turn::Idle) => {
                    self.runtime.jobs().rescan().notify_one();
                    Duration::MAX
                }
                Ok(Turn::Wait(pause)) => pause,
                Err(error) => {
                    tracing::warn!(handler = self.kind.spec.name, %error, "can't run jobs");
                    // Not lost: whoever is woken next finds what was put back.
                    self.kind.wake();
                    backoff::jitter(BROKEN)
                }
            };
            self.wait(wait, &draining).await;
        }
    }

    async fn wait(&self, pause: Duration, draining: &CancellationToken) {
        tokio::select! {
            () = draining.cancelled() => {}
            () = self.kind.due.notified(), if pause == Duration::MAX => {}
            () = tokio::time::sleep(pause), if pause != Duration::MAX => {}
        }
    }

    /// Claims and runs one batch.
    async fn turn(&mut self) -> Result<Turn> {
        let (has_poison, mut want) = (self.kind.take_poison(), self.size);
        let pool = self.runtime.pools().bookkeeping.clone();
        if let Some(rate) = self.kind.queue.rate {
            want = bounded(QUEUE_TIMEOUT, limit::take_tokens(&pool, self.kind.spec.name, rate, want)).await?;
            if want == 0 {
                return Ok(Turn::Wait(limit::until_token(rate)));
            }
        }
        let mut tx = Tx::begin(
            self.runtime.pools(),
            PoolKind::Jobs,
            Invocation::start(self.kind.spec.name, self.kind.spec.limits.timeout),
        )
        .await?;
        let claimed = bounded(QUEUE_TIMEOUT, self.claim(&mut tx, has_poison, want)).await;
        let used = claimed.as_ref().map_or(0, |jobs| jobs.as_ref().map_or(0, Vec::len));
        if self.kind.queue.rate.is_some() {
            let name = self.kind.spec.name;
            let returned = bounded(QUEUE_TIMEOUT, limit::return_tokens(&pool, name, want - used)).await;
            if let Err(error) = returned {
                tracing::warn!(handler = name, %error, "tokens can't be given back; fewer jobs begin for a while");
            }
        }
        match claimed {
            Err(error) => {
                self.kind.with_cursor(|cursor| cursor.failed(&error));
                Err(tx.fail(error).await)
            }
            Ok(None) => {
                tx.rollback().await;
                Ok(Turn::Wait(FULL))
            }
            Ok(Some(jobs)) if jobs.is_empty() => {
                tx.rollback().await;
                Ok(Turn::Idle)
            }
            Ok(Some(jobs)) => {
                if jobs.len() == want {
                    self.kind.wake();
                }
                self.hold_and_run(tx, jobs).await?;
                Ok(Turn::Ran)
            }
        }
    }

    /// None when all slots across processes are taken.
    async fn claim(&self, tx: &mut Tx, has_poison: bool, want: usize) -> Result<Option<Vec<Claimed>>> {
        let name = self.kind.spec.name;
        if let Some(across) = self.kind.queue.across
            && !limit::take_slot(tx.conn(), name, across).await?
        {
            return Ok(None);
        }
        let shunned = self.kind.shunned();
        let poison = if has_poison { claim::lock_poison(tx.conn(), name, &shunned).await? } else { None };
        if let Some(job) = poison {
            let jobs = vec![job];
            claim::free_unique_keys(tx.conn(), &jobs).await?;
            return Ok(Some(jobs));
        }
        let (from, began) = (self.kind.with_cursor(|cursor| cursor.from()), Instant::now());
        let jobs = claim::lock(tx.conn(), name, &from, (want, &shunned)).await?;
        let took = began.elapsed();
        claim::free_unique_keys(tx.conn(), &jobs).await?;
        // At the end: what was locked and not claimed after all must not be passed over.
        self.kind.with_cursor(|cursor| cursor.advance(&from, &jobs, took));
        Ok(Some(jobs))
    }

    async fn hold_and_run(&mut self, tx: Tx, jobs: Vec<Claimed>) -> Result<()> {
        let (ids, engine) = (jobs.iter().map(|job| job.id).collect::<Vec<_>>(), self.runtime.jobs().clone());
        let stops = engine.hold(ids.iter().copied(), None);
        let count = i64::try_from(ids.len()).unwrap_or_default();
        self.kind.load.running.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        let result = self.write_down_and_run(tx, &jobs, &ids, &stops).await;
        self.kind.load.running.fetch_sub(count, std::sync::atomic::Ordering::Relaxed);
        engine.forget(&ids, &stops);
        if result.is_err() {
            // Nobody knows what became of them: the claims that follow must not pass them over.
            self.kind.with_cursor(|cursor| cursor.put_back(&jobs));
        }
        result
    }

    async fn write_down_and_run(&mut self, tx: Tx, jobs: &[Claimed], ids: &[Uuid], stops: &[Stop]) -> Result<()> {
        if jobs[0].deaths >= MAX_DEATHS {
            tx.rollback().await;
            return failure::settle(&self.runtime, &self.kind, &jobs[0], Fence::Attempts(jobs[0].attempts), &poison())
                .await;
        }
        let written = bounded(QUEUE_TIMEOUT, self.write_down(ids)).await;
        if let Err(error) = written {
            return Err(tx.fail(error).await);
        }
        let began = Instant::now();
        match self.run_batch(tx, jobs, stops).await? {
            Batch::Committed(ran) => {
                let took = began.elapsed();
                self.kind.load.ran(ran as u64, took);
                self.kind.with_cursor(|cursor| cursor.put_back(&jobs[ran..]));
                self.resize(ran, jobs.len(), took);
                Ok(())
            }
            Batch::Undone => {
                self.kind.with_cursor(|cursor| cursor.put_back(jobs));
                self.size = match self.handle {
                    Handle::Each(_) => 1,
                    Handle::All(_) => (jobs.len() / 2).max(1),
                };
                Ok(())
            }
            Batch::Failed(outcome) => {
                self.kind.with_cursor(|cursor| cursor.put_back(jobs));
                self.size = 1;
                let fence = Fence::Attempts(jobs[0].attempts);
                failure::settle(&self.runtime, &self.kind, &jobs[0], fence, &outcome).await
            }
        }
    }

    /// Twice as many next time when all were done well within the window, only as many as fit into it otherwise.
    fn resize(&mut self, ran: usize, claimed: usize, took: Duration) {
        if ran < claimed {
            self.size = ran.max(1);
        } else if took < BATCH_WINDOW && claimed == self.size {
            self.size = (self.size * 2).min(self.kind.queue.batch);
        }
    }

    async fn write_down(&self, ids: &[Uuid]) -> Result<()> {
        sqlx::query!(
            "INSERT INTO job_claims (worker_id, kind, lane, job_ids) VALUES ($1, $2, $3, $4)
             ON CONFLICT (worker_id, kind, lane) DO UPDATE SET job_ids = excluded.job_ids, claimed_at = excluded.claimed_at",
            self.runtime.jobs().worker_id(),
            self.kind.spec.name,
            i32::try_from(self.index).unwrap_or(i32::MAX),
            ids,
        )
        .execute(&self.runtime.pools().bookkeeping)
        .await?;
        Ok(())
    }
}
