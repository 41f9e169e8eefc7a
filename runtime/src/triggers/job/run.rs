//! Running what a lane has claimed: one job after another, or all of them by one call.
use super::{
    Verdict, batched,
    failure::{self, JobOutcome, cancelled, judge, judge_stoppable, stoppable},
    lane::{BATCH_WINDOW, Each, Handle, JobLane},
    turn::{QUEUE_TIMEOUT, SPANS},
};
use crate::queue::{
    Headers,
    claim::{self, Claimed},
    settle::{self, Fence, Keys, Unblocked},
    stop::Stop,
};
use crate::{
    Invocation, Result, Tx,
    base::{batch, failpoint},
    context::invoke::{self, Finished, Together},
    postgres::tx::bounded,
    telemetry::traces,
};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The outcome of a batch's jobs, before the commit.
struct Ran<'a> {
    done: Vec<&'a Claimed>,
    snoozed: Vec<(Uuid, Duration)>,
    /// Failed by their own verdicts, without effects.
    failed: Vec<(&'a Claimed, JobOutcome)>,
    /// How many of the batch were run.
    count: usize,
}

/// The outcome of a batch.
pub(super) enum Batch {
    /// Committed: so many of it were run.
    Committed(usize),
    /// Rolled back. Its jobs are to run alone.
    Undone,
    /// Rolled back: its first job failed.
    Failed(JobOutcome),
}

impl JobLane {
    pub(super) async fn run_batch(&self, mut tx: Tx, jobs: &[Claimed], stops: &[Stop]) -> Result<Batch> {
        failpoint::hit(self.kind.spec.name, "after_claim");
        let began = Instant::now();
        let ran = match self.handle {
            Handle::Each(handle) => self.run_each(&mut tx, handle, jobs, stops).await,
            Handle::All(handle) => self.run_all(&mut tx, handle, jobs, stops).await,
        };
        let Ran { done, snoozed, failed, count } = match ran {
            Ok(ran) => ran,
            Err((batch, clean)) => {
                end(tx, clean).await;
                return Ok(batch);
            }
        };
        let taken = began.elapsed();
        let settled = bounded(QUEUE_TIMEOUT, self.settle(&mut tx, &done, &snoozed, &failed)).await;
        let unblocked = match settled {
            Ok(unblocked) => unblocked,
            Err(error) => {
                let error = tx.fail(error).await;
                return Ok(if count == 1 { Batch::Failed(judge(Err(error))) } else { Batch::Undone });
            }
        };
        failpoint::hit(self.kind.spec.name, "before_commit");
        tx.commit().await?;
        self.kind.with_cursor(|cursor| cursor.unblocked(&unblocked));
        failpoint::hit(self.kind.spec.name, "after_commit");
        self.runtime.metrics().done(self.kind.spec.name, done.iter().map(|job| job.attempt_at));
        if jobs.len() > SPANS || matches!(self.handle, Handle::All(_)) {
            self.runtime.metrics().batch(
                self.kind.spec.name,
                "job",
                u32::try_from(done.len()).unwrap_or(u32::MAX),
                taken,
            );
        }
        for (job, outcome) in failed {
            self.kind.with_cursor(|cursor| cursor.put_back(std::slice::from_ref(job)));
            failure::settle(&self.runtime, &self.kind, job, Fence::Attempts(job.attempts), &outcome).await?;
        }
        Ok(Batch::Committed(count))
    }

    /// One after another, while the window lasts. Otherwise what the batch came to, and whether the connection is
    /// clean.
    async fn run_each<'a>(
        &self,
        tx: &mut Tx,
        handle: Each,
        jobs: &'a [Claimed],
        stops: &[Stop],
    ) -> Result<Ran<'a>, (Batch, bool)> {
        let began = Instant::now();
        let mut ran = Ran { done: Vec::new(), snoozed: Vec::new(), failed: Vec::new(), count: 0 };
        for (job, stop) in jobs.iter().zip(stops) {
            if ran.count > 0 && began.elapsed() > BATCH_WINDOW {
                break;
            }
            let finished = self.run_one(tx, handle, job, stop, jobs.len()).await;
            match judge_stoppable(finished.result, stop) {
                JobOutcome::Done => ran.done.push(job),
                JobOutcome::Snooze(pause) if finished.committable => ran.snoozed.push((job.id, pause)),
                failed => {
                    let batch = if ran.count == 0 { Batch::Failed(failed) } else { Batch::Undone };
                    return Err((batch, finished.clean));
                }
            }
            ran.count += 1;
        }
        Ok(ran)
    }

    /// All at once: one verdict each. Otherwise what the batch came to, and whether the connection is clean.
    async fn run_all<'a>(
        &self,
        tx: &mut Tx,
        handle: batched::HandleAll,
        jobs: &'a [Claimed],
        stops: &[Stop],
    ) -> Result<Ran<'a>, (Batch, bool)> {
        let spec = self.kind.spec;
        let members = batched::members(spec, jobs, stops);
        let invocation = match &members[..] {
            [only] => only.invocation.clone(),
            _ => Invocation::start(spec.name, spec.limits.timeout),
        };
        let ids = batch::correlation_ids(members.iter().map(|member| &member.invocation));
        let invocations: Vec<_> = members.iter().map(|member| member.invocation.clone()).collect();
        let links = traces::links(invocations.iter());
        let together = Together { spec, invocation: &invocation, size: jobs.len(), ids: &ids, links };
        let mut clean = true;
        let work = async {
            let finished = invoke::quietly(&invocation, handle(tx, members)).await;
            clean = finished.clean;
            let verdicts = finished.result?;
            invoke::conclude(spec, invocations.iter(), &verdicts);
            traces::all_ended(spec, invocations.iter(), &verdicts);
            Ok(verdicts)
        };
        let verdicts = match together.run(&self.runtime, work).await {
            Ok(verdicts) => verdicts,
            Err(error) if jobs.len() == 1 => {
                traces::ended(spec, &invocation, error.class().name());
                return Err((Batch::Failed(judge_stoppable(Err(error), &stops[0])), clean));
            }
            Err(_) => return Err((Batch::Undone, clean)),
        };
        let mut ran = Ran { done: Vec::new(), snoozed: Vec::new(), failed: Vec::new(), count: jobs.len() };
        for ((job, stop), verdict) in jobs.iter().zip(stops).zip(verdicts) {
            // What was done or snoozed has had its effects: a cancellation finds a snoozed one at its next run.
            let has_effects = matches!(verdict, Ok(Verdict::Done | Verdict::Snooze(_)));
            let verdict = if stop.asked().is_cancelled() && !has_effects { Err(cancelled()) } else { verdict };
            match judge_stoppable(verdict, stop) {
                JobOutcome::Done => ran.done.push(job),
                JobOutcome::Snooze(pause) => ran.snoozed.push((job.id, pause)),
                failed @ (JobOutcome::Failed { .. } | JobOutcome::Lost) => ran.failed.push((job, failed)),
            }
        }
        Ok(ran)
    }

    async fn settle(
        &self,
        tx: &mut Tx,
        done: &[&Claimed],
        snoozed: &[(Uuid, Duration)],
        failed: &[(&Claimed, JobOutcome)],
    ) -> Result<Unblocked> {
        for (job, _) in failed {
            claim::take_unique_key_back(tx.conn(), self.kind.spec.name, job).await?;
        }
        for (id, pause) in snoozed {
            settle::snooze(tx.conn(), *id, None, *pause).await?;
        }
        settle::complete(tx.conn(), done, &Keys::of(self.kind.spec.name, self.per_key, done)).await
    }

    async fn run_one(&self, tx: &mut Tx, handle: Each, job: &Claimed, stop: &Stop, batch: usize) -> Finished<Verdict> {
        let (spec, headers) = (self.kind.spec, Headers::read(job.headers.as_deref()));
        let (correlation_id, traceparent) = (headers.correlation_id.as_deref(), headers.traceparent.as_deref());
        let invocation = Invocation::continuing(spec.name, correlation_id, traceparent, spec.limits.timeout)
            .cancelled_by(stop.asked().clone());
        tx.adopt(invocation.clone());
        let work = stoppable(stop, handle(tx, job.args.as_deref().unwrap_or("null")));
        invoke::observed(&self.runtime, spec, &invocation, batch > SPANS, work).await
    }
}

/// Rolls back; a connection that may be in the middle of a statement is closed instead.
async fn end(tx: Tx, clean: bool) {
    if clean {
        tx.rollback().await;
    }
}
