//! Calls that are decided many at a time.
//!
//! Each call passes admission by itself: token, limits, parsing. Then it waits in the combiner; a lane takes what waits
//! and decides it in one transaction: the handler's verdicts, receipts and events written, committed. Whoever asked
//! waits for a reply and no longer than their deadline; the decision does not depend on them. One who is gone before a
//! lane takes the call is not decided at all.
//!
//! That a call was made before is known when its receipt is written and another one is there. Then, as after any
//! failure, the transaction is rolled back and the receipts are looked for first.
//!
//! A batch that fails is rolled back and halved until whoever is to blame is alone. Each half has a transaction of its
//! own: a panic or a time-out leaves a connection that can't be trusted, with any savepoint on it.
use super::combine::{Combiner, Lane, Quarantine};
use super::{
    BatchHandler,
    group::{self, Next, Slot},
    incoming::{Incoming, Received, checked, decode},
    reply::{Decided, Reply},
    serve::{CONFLICT_PAUSES, Entry},
};
use crate::{
    Class, Error, Invocation, Member, Result, Runtime, Tx,
    base::{
        backoff,
        batch::{self, Verdicts},
        error::outcome_of,
        failpoint,
        spec::PoolKind,
    },
    context::{
        admission::BUSY,
        invoke::{self, Finished, Together},
    },
    postgres::{
        receipt::{self, CallKey, Outcome},
        tx::{PinnedConnection, TxOptions, bounded},
    },
    telemetry::traces,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, Semaphore, oneshot};

/// A transaction waits no longer than this for a lock: then the calls of that key are quarantined from the others, and
/// go on trying by themselves.
const PATIENCE: Duration = Duration::from_millis(250);

/// And no longer than this while it is found out which keys those are.
const SHORT_LOCK_TIMEOUT: Duration = Duration::from_millis(10);

/// Keys that are quarantined wait for their locks in turn, so many at a time: each takes a connection.
const QUARANTINED: usize = 4;

/// A connection goes back to the pool after so many transactions, or a lane that never ends would keep it for ever.
const PINNED_FOR: u32 = 32;

/// After a call that was made before, receipts are looked for first in so many batches: others may come again too.
const CHECK_RECEIPTS_FOR: u32 = 64;

/// A batch that takes longer is one that others don't wait for.
const QUICK: Duration = Duration::from_millis(20);

/// A batched handler's place in this process: its combiner and its lanes.
struct Inner<H: BatchHandler> {
    runtime: Runtime,
    combiner: Arc<Combiner<H::Key, Waiting<H>>>,
    quarantine: Semaphore,
    check_receipts_first: AtomicU32,
}

/// A lane's batch being decided.
struct LaneTurn {
    pinned: PinnedConnection,
    committing: Notify,
    /// A commit was asked for and its answer never came.
    in_doubt: AtomicBool,
}

impl LaneTurn {
    fn on(pinned: &PinnedConnection) -> Self {
        Self { pinned: pinned.clone(), committing: Notify::new(), in_doubt: AtomicBool::new(false) }
    }

    fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }

    /// Comes when there is nothing left to do but to wait for the disk, or when it takes long: then the next batch may
    /// begin beside this one.
    async fn is_long(&self) {
        tokio::select! {
            () = self.committing.notified() => {}
            () = tokio::time::sleep(QUICK) => {}
        }
    }
}

type Waiting<H> = group::Waiting<<H as BatchHandler>::Command>;
type Group<H> = group::Group<H>;

impl Entry {
    /// To a handler that decides many calls at a time: what they wait in and the lanes are this process's.
    pub(crate) fn batched<H: BatchHandler>(runtime: &Runtime) -> Self {
        let limits = H::SPEC.batch.unwrap_or(crate::base::spec::Batch::DEFAULT);
        // Half of the pool at most for the lanes, a quarter for those quarantined: the rest is for other handlers.
        let pool = runtime.pools().of(PoolKind::Calls).size();
        let combiner = Combiner::new(limits.lanes(limits.lanes.min(pool / 2).max(1)));
        let quarantine = Semaphore::new(QUARANTINED.min(pool / 4).max(1));
        let inner = Arc::new(Inner::<H> {
            runtime: runtime.clone(),
            combiner,
            quarantine,
            check_receipts_first: AtomicU32::new(0),
        });
        Self::unary(H::SPEC.name, move |incoming, request| inner.clone().serve(incoming, request))
    }
}

impl<H: BatchHandler> Inner<H> {
    async fn serve(self: Arc<Self>, incoming: Incoming, request: Received) -> Result<Reply> {
        let metrics = self.runtime.metrics();
        let observed = metrics.begin(H::SPEC.name, H::SPEC.trigger.kind());
        let Finished { result, .. } = invoke::quietly(&incoming.invocation, self.call(&incoming, request)).await;
        metrics.end(&observed, outcome_of(&result));
        traces::ended(H::SPEC, &incoming.invocation, outcome_of(&result));
        result
    }

    async fn call(self: &Arc<Self>, incoming: &Incoming, request: Received) -> Result<Reply> {
        let runtime = &self.runtime;
        let refuse = |error| runtime.admission().rejected(H::SPEC, &incoming.invocation, error);
        let caller = incoming.somebody(runtime, H::ACCESS).map_err(refuse)?;
        let _permit = runtime.admission().admit(H::SPEC).map_err(refuse)?;
        let bytes = request.as_ref().map_or(0, Bytes::len);
        let request: H::Request = decode(request).map_err(refuse)?;
        let (call, command) = checked((H::SPEC, caller), request, H::idempotency_key, H::parse).map_err(refuse)?;
        let key = H::key(&command);
        runtime.admission().rates.change_about(&key).map_err(refuse)?;
        let (reply, decided) = oneshot::channel();
        let member = Member { input: command, invocation: incoming.invocation.clone() };
        let waiting = group::Waiting { member, slot: Slot { call, reply } };
        let submitted = self.combiner.submit(key, (waiting, bytes), |waiting| waiting.slot.is_wanted());
        let full = |_| {
            let most = H::SPEC.batch.map_or(0, |batch| batch.per_key);
            let message = format!("{most} calls of {} about the same are waiting already; try again", H::SPEC.name);
            refuse(Error::new(Class::Exhausted, message).with_retry_after(BUSY).with_reason("QUEUE_FULL"))
        };
        if let Some(lane) = submitted.map_err(full)? {
            self.clone().open(lane);
        }
        let lost = |_| Error::internal(anyhow::anyhow!("the lane ended before it had decided"));
        let reply = decided.await.map_err(lost)?.into_reply()?;
        failpoint::hit(H::SPEC.name, "before_reply");
        Ok(reply)
    }

    fn open(self: Arc<Self>, lane: Lane<H::Key, Waiting<H>>) {
        let tasks = self.runtime.tasks().clone();
        let work: BoxFuture<'static, ()> = Box::pin(async move { self.work(lane).await });
        tasks.spawn(work);
    }

    async fn work(self: Arc<Self>, mut lane: Lane<H::Key, Waiting<H>>) {
        let (mut pinned, mut batches) = (PinnedConnection::default(), 0_u32);
        while let Some(calls) = lane.next(|waiting| waiting.slot.is_wanted()) {
            if let Some(another) = lane.another() {
                self.clone().open(another);
            }
            batches += 1;
            if batches.is_multiple_of(PINNED_FOR) {
                pinned = PinnedConnection::default();
            }
            let turn = LaneTurn::on(&pinned);
            let mut decided = Box::pin(self.decide(&turn, Group::of(calls, self.checks_receipts_first())));
            let stuck = tokio::select! {
                biased;
                stuck = &mut decided => stuck,
                () = turn.is_long() => {
                    if let Some(another) = lane.is_held_up() {
                        self.clone().open(another);
                    }
                    decided.await
                }
            };
            for (group, error) in stuck {
                let quarantine = lane.quarantine(&group.keys());
                self.clone().finish_quarantined(quarantine, group, error);
            }
        }
    }

    fn checks_receipts_first(&self) -> bool {
        let left = self.check_receipts_first.load(Ordering::Relaxed);
        self.check_receipts_first.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }

    /// Goes on with calls whose lock is held elsewhere, in a task of their own, until they are decided or out of time.
    fn finish_quarantined(self: Arc<Self>, quarantine: Quarantine<H::Key, Waiting<H>>, group: Group<H>, error: Error) {
        let tasks = self.runtime.tasks().clone();
        let work: BoxFuture<'static, ()> = Box::pin(async move {
            let mut stuck = vec![(group, error)];
            while let Some((group, error)) = stuck.pop() {
                let Some(group) = group.in_time(&error) else { continue };
                // In turn with the others that are stuck.
                let _place = self.quarantine.acquire().await;
                stuck.extend(self.decide(&LaneTurn::on(&PinnedConnection::default()), group).await);
            }
            if let Some(lane) = quarantine.end() {
                self.open(lane);
            }
        });
        tasks.spawn(work);
    }

    /// Decides every call of a group, in as many transactions as it takes. Gives those whose lock is not to be had for
    /// the moment, each key's by themselves.
    async fn decide(&self, turn: &LaneTurn, group: Group<H>) -> Vec<(Group<H>, Error)> {
        let (mut groups, mut stuck) = (VecDeque::from([group]), Vec::new());
        while let Some(group) = groups.pop_front() {
            let (group, repeated) = group.once_each();
            if let Some(repeated) = repeated {
                groups.push_front(repeated);
            }
            if group.members.is_empty() {
                continue;
            }
            let Err((group, error)) = Box::pin(self.decide_together(turn, group)).await else { continue };
            match group.divide(error) {
                Next::Halves([left, right]) => {
                    groups.push_front(right);
                    groups.push_front(left);
                }
                Next::Wait(mut group, error) => {
                    for later in &mut groups {
                        group.take_over(later);
                    }
                    stuck.push((group, error));
                }
                Next::Fail(group, error) => Box::pin(self.fail(turn, group, &error)).await,
            }
        }
        stuck
    }

    /// Answers with the error, but for those that were answered before.
    async fn fail(&self, turn: &LaneTurn, mut group: Group<H>, error: &Error) {
        if (turn.is_in_doubt() || (!group.check_receipts_first && !error.is_nobodys_fault()))
            && let Ok(mut tx) = Tx::begin_on(
                &turn.pinned,
                self.runtime.pools(),
                PoolKind::Calls,
                group.representative(),
                TxOptions::USUAL,
            )
            .await
            && let Ok(known) = known(&mut tx, &group.calls()).await
        {
            group.answer_known(known);
            tx.rollback().await;
        }
        group.fail(error);
    }

    /// One transaction; again after a conflict with a concurrent one, or when another run of one of the calls was
    /// first. The group comes back where nothing of it stays.
    async fn decide_together(&self, turn: &LaneTurn, mut group: Group<H>) -> Result<(), (Group<H>, Error)> {
        let invocation = group.representative();
        let mut attempt = 0;
        loop {
            let ids = batch::correlation_ids(group.members.iter().map(|member| &member.invocation));
            let links = traces::links(group.members.iter().map(|member| &member.invocation));
            let size = group.members.len();
            let together = Together { spec: H::SPEC, invocation: &invocation, size, ids: &ids, links };
            let attempt_it = invoke::guarded(&invocation, self.attempt(turn, &mut group, &invocation));
            let ran = together.run(&self.runtime, attempt_it).await;
            match ran {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    group.check_receipts_first = true;
                    self.check_receipts_first.store(CHECK_RECEIPTS_FOR, Ordering::Relaxed);
                }
                Err(error) if error.is_transient_conflict() && attempt < H::SPEC.limits.retries => {
                    tokio::time::sleep(backoff::pause(attempt + 1, CONFLICT_PAUSES.0, CONFLICT_PAUSES.1)).await;
                }
                Err(error) => return Err((group, error)),
            }
            attempt += 1;
        }
    }

    /// False when another run of one of the calls committed in between.
    async fn attempt(&self, turn: &LaneTurn, group: &mut Group<H>, invocation: &Invocation) -> Result<bool> {
        // Half of the time that is left is for those who are not to blame when one of them takes too long.
        let left = invocation.remaining();
        let limit = if group.members.len() > 1 { left / 2 } else { left };
        let run = Invocation { deadline: Instant::now() + limit, ..invocation.clone() };
        let lock_wait = if group.short_lock_timeout { SHORT_LOCK_TIMEOUT } else { PATIENCE };
        let options = TxOptions { lock_wait, ..TxOptions::USUAL };
        let mut tx = Tx::begin_on(&turn.pinned, self.runtime.pools(), PoolKind::Calls, run.clone(), options).await?;
        if group.check_receipts_first {
            match known(&mut tx, &group.calls()).await {
                Ok(known) => group.answer_known(known),
                Err(error) => return Err(tx.fail(error).await),
            }
            if group.members.is_empty() {
                tx.rollback().await;
                return Ok(true);
            }
        }
        let Finished { result, clean, .. } = invoke::quietly(&run, H::handle(&mut tx, &group.members)).await;
        match result.and_then(|verdicts| batch::counted(verdicts, group.members.len())) {
            Ok(verdicts) => self.settle(turn, group, tx, verdicts).await,
            Err(error) if clean => Err(tx.fail(error).await),
            Err(error) => Err(error),
        }
    }

    async fn settle(
        &self,
        turn: &LaneTurn,
        group: &mut Group<H>,
        mut tx: Tx,
        verdicts: Verdicts<H::Reply>,
    ) -> Result<bool> {
        let outcomes: Vec<Option<Outcome>> = verdicts.iter().map(recorded).collect();
        if !group.check_receipts_first && !self.are_new(group, &outcomes, &mut tx).await? {
            tx.rollback().await;
            return Ok(false);
        }
        if outcomes.iter().any(Option::is_some) {
            let calls = group.slots.iter().map(|slot| &slot.call);
            let receipts = calls.zip(&outcomes).filter_map(|(call, outcome)| Some((call, outcome.as_ref()?)));
            let left = tx.invocation().remaining();
            match bounded(left, receipt::record(&mut tx, receipts)).await {
                Ok(true) => {}
                Ok(false) => {
                    tx.rollback().await;
                    return Ok(false);
                }
                Err(error) => return Err(tx.fail(error).await),
            }
            failpoint::hit(H::SPEC.name, "before_commit");
            turn.committing.notify_one();
            turn.in_doubt.store(true, Ordering::Relaxed);
            tx.commit().await?;
            turn.in_doubt.store(false, Ordering::Relaxed);
            failpoint::hit(H::SPEC.name, "after_commit");
        } else {
            tx.rollback().await;
        }
        invoke::conclude(H::SPEC, group.members.iter().map(|member| &member.invocation), &verdicts);
        group.members.clear();
        for ((slot, verdict), outcome) in group.slots.drain(..).zip(verdicts).zip(outcomes) {
            let outcome = outcome.unwrap_or_else(|| verdict.map(|reply| reply.encode_to_vec()));
            slot.answer(Decided::now(outcome));
        }
        Ok(true)
    }

    /// Returns whether those that leave no receipt, where one before it would be met, have none from before either.
    async fn are_new(&self, group: &Group<H>, outcomes: &[Option<Outcome>], tx: &mut Tx) -> Result<bool> {
        let slots = group.slots.iter().zip(outcomes);
        let calls: Vec<_> = slots.filter(|(_, outcome)| outcome.is_none()).map(|(slot, _)| &slot.call).collect();
        Ok(calls.is_empty() || known(tx, &calls).await?.iter().all(Option::is_none))
    }
}

/// Returns what was answered to these calls before.
async fn known(tx: &mut Tx, calls: &[&CallKey]) -> Result<Vec<Option<Outcome>>> {
    bounded(tx.invocation().remaining(), receipt::find(tx.conn(), calls)).await
}

/// Returns what stays of a verdict: replies and refusals. Other errors may pass another time.
fn recorded<R: Message>(verdict: &Result<R>) -> Option<Outcome> {
    match verdict {
        Ok(reply) => Some(Ok(reply.encode_to_vec())),
        Err(error) if error.class() == Class::Refused => Some(Err(error.again())),
        Err(_) => None,
    }
}
