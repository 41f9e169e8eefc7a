//! Calls that are decided many at a time.
//!
//! Each call passes the door by itself: token, limits, parsing. Then it waits in the combiner; a lane takes what waits and
//! decides it in one transaction: the handler's verdicts, receipts and events written, committed. Whoever asked waits for a
//! reply and no longer than their deadline; the decision does not depend on them. One who is gone before a lane takes the
//! call is not decided at all.
//!
//! That a call was made before is known when its receipt is written and another one is there. Then, as after any failure,
//! the transaction is rolled back and the receipts are looked for first.
//!
//! A batch that fails is rolled back and halved until whoever is to blame is alone. Each half has a transaction of its own: a
//! panic or a time-out leaves a connection that can't be trusted, with any savepoint on it.
use super::{
    BatchHandler,
    group::{self, Next, Slot},
    incoming::{Incoming, call_key, decode},
    serve::{CONFLICT_PAUSES, Entry},
};
use crate::{
    Class, Error, Invocation, Member, Result, Runtime, Tx, backoff,
    batch::{self, Verdicts},
    combine::{Combiner, Lane},
    db::Share,
    fault,
    invoke::{self, Finished, Together},
    receipt::{self, Outcome},
    runtime::BUSY,
    tx::{Kept, Terms, bounded},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, oneshot};

/// Calls wait no longer than this for a lock, in their lane: then those of that key are set apart, and wait there.
const PATIENCE: Duration = Duration::from_millis(250);

/// A batch that takes longer is one that others don't wait for.
const QUICK: Duration = Duration::from_millis(20);

/// A batched handler's place in this process: its combiner and its lanes.
struct Inner<H: BatchHandler> {
    runtime: Runtime,
    combiner: Arc<Combiner<H::Key, Waiting<H>>>,
}

/// A lane's batch being decided.
struct Turn {
    kept: Kept,
    committing: Notify,
}

impl Turn {
    fn on(kept: &Kept) -> Self {
        Self { kept: kept.clone(), committing: Notify::new() }
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
        let combiner = Combiner::new(H::SPEC.batch.unwrap_or(crate::spec::Batch::DEFAULT));
        let inner = Arc::new(Inner::<H> { runtime: runtime.clone(), combiner });
        Self::unary(move |incoming, request| inner.clone().serve(incoming, request))
    }
}

impl<H: BatchHandler> Inner<H> {
    async fn serve(self: Arc<Self>, incoming: Incoming, request: Bytes) -> Result<Bytes> {
        let metrics = self.runtime.metrics();
        let observed = metrics.begin(H::SPEC.name, H::SPEC.trigger.kind());
        let Finished { result, .. } = invoke::quietly(&incoming.invocation, self.call(&incoming, request)).await;
        metrics.end(&observed, invoke::outcome_of(&result));
        result
    }

    async fn call(self: &Arc<Self>, incoming: &Incoming, request: Bytes) -> Result<Bytes> {
        let runtime = &self.runtime;
        let refuse = |error| runtime.turned_away(H::SPEC, &incoming.invocation, error);
        let caller = incoming.somebody(H::ACCESS).map_err(refuse)?;
        let _permit = runtime.admit(H::SPEC).map_err(refuse)?;
        let bytes = request.len();
        let request: H::Request = decode(request).map_err(refuse)?;
        let call = call_key(H::SPEC, H::idempotency_key(&request), &request, &caller).map_err(refuse)?;
        let command = H::parse(request, &caller).map_err(refuse)?;
        let key = H::key(&command);
        let (reply, decided) = oneshot::channel();
        let member = Member { input: command, invocation: incoming.invocation.clone() };
        let submitted = self.combiner.submit(key, group::Waiting { member, slot: Slot { call, reply } }, bytes);
        let full = |_| {
            let most = H::SPEC.batch.map_or(0, |batch| batch.per_key);
            let message = format!("{most} calls of {} about the same are waiting already; try again", H::SPEC.name);
            refuse(Error::new(Class::Exhausted, message).with_retry_after(BUSY))
        };
        if let Some(lane) = submitted.map_err(full)? {
            self.clone().open(lane);
        }
        let lost = |_| Error::internal(anyhow::anyhow!("the lane ended before it had decided"));
        let reply = decided.await.map_err(lost)??;
        fault::point(H::SPEC.name, "before_reply");
        Ok(reply.into())
    }

    fn open(self: Arc<Self>, lane: Lane<H::Key, Waiting<H>>) {
        self.open_with(lane, Vec::new());
    }

    /// A lane that begins with calls that were set apart.
    fn open_with(self: Arc<Self>, lane: Lane<H::Key, Waiting<H>>, apart: Vec<Group<H>>) {
        let tasks = self.runtime.tasks().clone();
        let work: BoxFuture<'static, ()> = Box::pin(async move { self.work(lane, apart).await });
        tasks.spawn(work);
    }

    async fn work(self: Arc<Self>, mut lane: Lane<H::Key, Waiting<H>>, apart: Vec<Group<H>>) {
        let kept = Kept::default();
        Box::pin(self.decide(&Turn::on(&kept), apart)).await;
        while let Some(calls) = lane.next(|waiting| waiting.slot.is_wanted()) {
            if let Some(another) = lane.another() {
                self.clone().open(another);
            }
            let turn = Turn::on(&kept);
            let mut decided = Box::pin(self.decide(&turn, vec![Group::of(calls)]));
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
            for group in stuck {
                match lane.set_apart(&group.keys()) {
                    Some(apart) => self.clone().open_with(apart, vec![group]),
                    None => drop(Box::pin(self.decide(&turn, vec![group])).await),
                }
            }
        }
    }

    /// Decides every call of these groups, in as many transactions as it takes. Gives those whose lock is not to be had
    /// for the moment.
    async fn decide(&self, turn: &Turn, groups: Vec<Group<H>>) -> Vec<Group<H>> {
        let (mut groups, mut stuck) = (VecDeque::from(groups), Vec::new());
        while let Some(group) = groups.pop_front() {
            let (group, repeated) = group.once_each();
            if let Some(repeated) = repeated {
                groups.push_front(repeated);
            }
            let Err((group, error)) = Box::pin(self.decide_together(turn, group)).await else { continue };
            match group.divide(error) {
                Next::Halves([left, right]) => {
                    groups.push_front(right);
                    groups.push_front(left);
                }
                Next::Wait(group) => stuck.push(group),
                Next::Fail(group, error) => Box::pin(self.fail(turn, group, &error)).await,
            }
        }
        stuck
    }

    /// Answers with the error, but for those that were answered before.
    async fn fail(&self, turn: &Turn, mut group: Group<H>, error: &Error) {
        if !group.careful
            && let Ok(mut tx) =
                Tx::begin_on(&turn.kept, self.runtime.pools(), Share::Calls, group.representative(), Terms::USUAL).await
        {
            let calls: Vec<_> = group.slots.iter().map(|slot| &slot.call).collect();
            if let Ok(known) = bounded(tx.invocation().remaining(), receipt::find(tx.conn(), &calls)).await {
                group.answer_known(known);
                tx.rollback().await;
            }
        }
        group.fail(error);
    }

    /// One transaction; again after a conflict with a concurrent one, or when another run of one of the calls was first.
    /// The group comes back where nothing of it stays.
    async fn decide_together(&self, turn: &Turn, mut group: Group<H>) -> Result<(), (Group<H>, Error)> {
        let invocation = group.representative();
        let mut attempt = 0;
        loop {
            let ids = batch::correlation_ids(group.members.iter().map(|member| &member.invocation));
            let together = Together { spec: H::SPEC, invocation: &invocation, size: group.members.len(), ids: &ids };
            let attempt_it = invoke::guarded(&invocation, self.attempt(turn, &mut group, &invocation));
            let ran = together.run(&self.runtime, attempt_it).await;
            match ran {
                Ok(true) => return Ok(()),
                Ok(false) => group.careful = true,
                Err(error) if error.is_transient_conflict() && attempt < H::SPEC.limits.retries => {
                    tokio::time::sleep(backoff::pause(attempt + 1, CONFLICT_PAUSES.0, CONFLICT_PAUSES.1)).await;
                }
                Err(error) => return Err((group, error)),
            }
            attempt += 1;
        }
    }

    /// False when another run of one of the calls committed in between.
    async fn attempt(&self, turn: &Turn, group: &mut Group<H>, invocation: &Invocation) -> Result<bool> {
        // Half of the time that is left is for those who are not to blame when one of them takes too long.
        let left = invocation.remaining();
        let limit = if group.members.len() > 1 { left / 2 } else { left };
        let run = Invocation { deadline: Instant::now() + limit, ..invocation.clone() };
        let lock_wait = if group.patient { Duration::MAX } else { PATIENCE };
        let terms = Terms { lock_wait, ..Terms::USUAL };
        let mut tx = Tx::begin_on(&turn.kept, self.runtime.pools(), Share::Calls, run.clone(), terms).await?;
        if group.careful {
            let calls: Vec<_> = group.slots.iter().map(|slot| &slot.call).collect();
            match bounded(limit, receipt::find(tx.conn(), &calls)).await {
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
        turn: &Turn,
        group: &mut Group<H>,
        mut tx: Tx,
        verdicts: Verdicts<H::Reply>,
    ) -> Result<bool> {
        let outcomes: Vec<Option<Outcome>> = verdicts.iter().map(recorded).collect();
        if !group.careful && !self.are_new(group, &outcomes, &mut tx).await? {
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
            fault::point(H::SPEC.name, "before_commit");
            turn.committing.notify_one();
            tx.commit().await?;
            fault::point(H::SPEC.name, "after_commit");
        } else {
            tx.rollback().await;
        }
        invoke::conclude(H::SPEC, group.members.iter().map(|member| &member.invocation), &verdicts);
        group.members.clear();
        for ((slot, verdict), outcome) in group.slots.drain(..).zip(verdicts).zip(outcomes) {
            slot.answer(outcome.unwrap_or_else(|| verdict.map(|reply| reply.encode_to_vec())));
        }
        Ok(true)
    }

    /// Whether those that leave no receipt, where one before it would be met, have none from before either.
    async fn are_new(&self, group: &Group<H>, outcomes: &[Option<Outcome>], tx: &mut Tx) -> Result<bool> {
        let slots = group.slots.iter().zip(outcomes);
        let calls: Vec<_> = slots.filter(|(_, outcome)| outcome.is_none()).map(|(slot, _)| &slot.call).collect();
        if calls.is_empty() {
            return Ok(true);
        }
        let left = tx.invocation().remaining();
        let known = bounded(left, receipt::find(tx.conn(), &calls)).await?;
        Ok(known.iter().all(Option::is_none))
    }
}

/// What stays of a verdict: replies and refusals. Other errors may pass another time.
fn recorded<R: Message>(verdict: &Result<R>) -> Option<Outcome> {
    match verdict {
        Ok(reply) => Some(Ok(reply.encode_to_vec())),
        Err(error) if error.class() == Class::Refused => Some(Err(error.again())),
        Err(_) => None,
    }
}
