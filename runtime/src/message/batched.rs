//! Consuming many messages at a time: what has been delivered is one batch, applied in one transaction and acknowledged
//! together. Nothing waits for a batch to fill.
//!
//! A message that can't be applied with the others is handled by itself, with its tries and its parking. When a whole batch
//! fails it is halved, as often as it takes to find the one to blame.
use super::{
    consumer::{Consumer, Erased, HandleTx, PAUSES, consume, see_through},
    delivery::Received,
};
use crate::{
    Error, Invocation, Io, Member, Result, Runtime, Tx, backoff,
    batch::{self, Verdicts},
    db::Share,
    error::Disposition,
    fault,
    invoke::{self, Finished, Together},
    receipt,
    spec::Batch,
    tx::bounded,
};
use anyhow::{Context, bail};
use futures_util::{FutureExt, StreamExt, future::try_join_all};
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions},
};
use std::collections::{HashSet, VecDeque};

/// Batches delivered ahead: the next one arrives while one is applied.
const PREFETCHED_BATCHES: usize = 2;

/// A batch that the surroundings seem to be to blame for is tried so often, then halved: it may be one message after all.
const PATIENT_TRIES: u32 = 3;

/// One channel, whose batches are applied one after another.
pub(super) struct Lane {
    channel: Channel,
    deliveries: lapin::Consumer,
}

/// As many channels of the connection as there are lanes; the first is given.
pub(super) async fn open_lanes(
    runtime: &Runtime,
    consumer: Consumer,
    limits: Batch,
    connection: &Connection,
    first: Channel,
) -> anyhow::Result<Vec<Lane>> {
    let mut channels = vec![first];
    while channels.len() < limits.lanes {
        channels.push(connection.create_channel().await?);
    }
    let open = channels.into_iter().map(|channel| async move {
        let deliveries = consume(runtime, consumer.spec.name, &channel, limits.size * PREFETCHED_BATCHES).await?;
        anyhow::Ok(Lane { channel, deliveries })
    });
    try_join_all(open).await
}

/// Works all lanes until the drain. Fails when one of them does.
pub(super) async fn work(runtime: &Runtime, consumer: Consumer, limits: Batch, lanes: Vec<Lane>) -> anyhow::Result<()> {
    try_join_all(lanes.into_iter().map(|lane| lane.work(runtime, consumer, limits))).await.map(drop)
}

impl Lane {
    async fn work(mut self, runtime: &Runtime, consumer: Consumer, limits: Batch) -> anyhow::Result<()> {
        let draining = runtime.tasks().draining();
        loop {
            let first = tokio::select! {
                biased;
                () = draining.cancelled() => break,
                delivery = self.deliveries.next() => delivery,
            };
            let Some(first) = first else { bail!("RabbitMQ cancelled the consumer") };
            let batch = self.gather(first.context("the delivery failed")?, limits)?;
            settle(runtime, consumer, batch).await;
        }
        if let Err(error) = self.channel.basic_cancel(consumer.spec.name.into(), BasicCancelOptions::default()).await {
            tracing::info!(%error, "the consumer's connection ended before it was closed");
        }
        Ok(())
    }

    /// The first and what else has been delivered already, within the limits.
    fn gather(&mut self, first: Delivery, limits: Batch) -> anyhow::Result<Vec<Delivery>> {
        let mut bytes = first.data.len();
        let mut batch = vec![first];
        while batch.len() < limits.size && bytes < limits.bytes {
            match self.deliveries.next().now_or_never() {
                Some(Some(delivery)) => {
                    let delivery = delivery.context("the delivery failed")?;
                    bytes += delivery.data.len();
                    batch.push(delivery);
                }
                Some(None) => bail!("RabbitMQ cancelled the consumer"),
                None => break,
            }
        }
        Ok(batch)
    }
}

/// Applies or parks each of them, then acknowledges: all together where a drain has left none of them undone.
async fn settle(runtime: &Runtime, consumer: Consumer, batch: Vec<Delivery>) {
    let spec = consumer.spec;
    let received: Vec<_> = batch.iter().map(Received::of).collect();
    let done = settle_each(runtime, consumer, received).await;
    fault::point(spec.name, "before_ack");
    let multiple = done.iter().all(|done| *done);
    let last = batch.len().saturating_sub(1);
    for (index, (delivery, done)) in batch.iter().zip(done).enumerate() {
        if !done || (multiple && index < last) {
            continue;
        }
        if let Err(error) = delivery.acker.ack(BasicAckOptions { multiple }).await {
            tracing::info!(handler = spec.name, %error, "not acknowledged; delivered again, it will be found done");
            return;
        }
    }
}

/// Whether each of them was applied or parked.
async fn settle_each(runtime: &Runtime, consumer: Consumer, received: Vec<Received>) -> Vec<bool> {
    let mut done = vec![false; received.len()];
    let mut tries = 0;
    let mut groups = VecDeque::from(once_each(&received));
    while let Some(group) = groups.pop_front() {
        let members = group.iter().map(|place| {
            let received = received[*place].clone();
            Member { invocation: received.invocation(consumer.spec.limits.timeout), input: received }
        });
        let applied = together(runtime, consumer, members.collect()).await;
        match applied {
            Ok(verdicts) => {
                for (place, verdict) in group.into_iter().zip(verdicts) {
                    done[place] = match verdict {
                        Ok(()) => true,
                        Err(_) => see_through(runtime, consumer, &received[place]).await,
                    };
                }
            }
            Err(error) if is_nobodys_fault(&error) && (tries < PATIENT_TRIES || group.len() == 1) => {
                tries += 1;
                groups.push_front(group);
                if !runtime.tasks().pause(backoff::pause(tries, PAUSES.0, PAUSES.1)).await {
                    break;
                }
            }
            Err(_) if group.len() == 1 => {
                done[group[0]] = see_through(runtime, consumer, &received[group[0]]).await;
            }
            Err(_) => {
                let (left, right) = group.split_at(group.len() / 2);
                groups.push_front(right.to_vec());
                groups.push_front(left.to_vec());
            }
        }
    }
    done
}

/// What the surroundings are to blame for is tried again in place. A time-out may be one message's.
fn is_nobodys_fault(error: &Error) -> bool {
    error.is_transient_conflict()
        || (error.class().disposition() == Disposition::RetryUntilItWorks
            && error.class() != crate::Class::DeadlineExceeded)
}

/// Places of messages, apart where one is there twice: the second time comes after the first.
fn once_each(received: &[Received]) -> Vec<Vec<usize>> {
    let (mut seen, mut first, mut repeated) = (HashSet::new(), Vec::new(), Vec::new());
    for (place, received) in received.iter().enumerate() {
        match received.message_id {
            Some(id) if !seen.insert(id) => repeated.push(vec![place]),
            _ => first.push(place),
        }
    }
    repeated.insert(0, first);
    repeated
}

/// One run for all of them, in a task of its own.
async fn together(runtime: &Runtime, consumer: Consumer, members: Vec<Member<Received>>) -> Result<Verdicts<()>> {
    let inner = runtime.clone();
    let run = async move {
        let invocation = match &members[..] {
            [only] => only.invocation.clone(),
            _ => Invocation::start(consumer.spec.limits.timeout),
        };
        let ids = batch::correlation_ids(members.iter().map(|member| &member.invocation));
        let together = Together { spec: consumer.spec, invocation: &invocation, size: members.len(), ids: &ids };
        let work = async {
            let Finished { result, .. } = invoke::quietly(&invocation, apply(&inner, consumer, &members)).await;
            let verdicts = result?;
            invoke::conclude(consumer.spec, members.iter().map(|member| &member.invocation), &verdicts);
            Ok(verdicts)
        };
        let began = std::time::Instant::now();
        let size = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let result = Box::pin(together.run(&inner, work)).await;
        if result.is_ok() {
            inner.metrics().batch(consumer.spec.name, "message", size, began.elapsed());
        }
        result
    };
    runtime.tasks().spawn(run).await.unwrap_or_else(|join| Err(Error::internal(join)))
}

/// Applies a batch, with its receipts where it has any. One verdict each.
pub(super) async fn apply(runtime: &Runtime, consumer: Consumer, members: &[Member<Received>]) -> Result<Verdicts<()>> {
    let latest = members.iter().map(|member| member.invocation.deadline).max();
    let mut run =
        members.first().map_or_else(|| Invocation::start(consumer.spec.limits.timeout), |m| m.invocation.clone());
    run.deadline = latest.unwrap_or(run.deadline);
    match consumer.handler {
        Erased::TxBatch(handle) => {
            let mut tx = Tx::begin(runtime.pools(), Share::Jobs, run).await?;
            match first_time(consumer.spec.name, &mut tx, handle, members).await {
                Ok(Some(verdicts)) => {
                    fault::point(consumer.spec.name, "before_commit");
                    tx.commit().await?;
                    Ok(verdicts)
                }
                Ok(None) => {
                    tx.rollback().await;
                    Err(Error::new(crate::Class::Unavailable, "another consumer had one of these messages as well"))
                }
                Err(error) => Err(tx.fail(error).await),
            }
        }
        Erased::IoBatch(handle) => {
            let io = Io::new(runtime, Share::Jobs, run);
            bounded(io.invocation().remaining(), handle(&io, members)).await
        }
        Erased::Tx(_) | Erased::Io(_) => {
            Err(Error::internal(anyhow::anyhow!("{} handles one message at a time", consumer.spec.name)))
        }
    }
}

/// Handles those that were not handled before, with their receipts as the last statement. None when one was handled
/// elsewhere meanwhile.
async fn first_time(
    consumer: &str,
    tx: &mut Tx,
    handle: HandleTx,
    members: &[Member<Received>],
) -> Result<Option<Verdicts<()>>> {
    let ids: Vec<_> = members.iter().filter_map(|member| member.input.message_id).collect();
    let known = receipt::in_inbox(tx, consumer, &ids).await?;
    let is_new = |member: &&Member<Received>| member.input.message_id.is_some_and(|id| !known.contains(&id));
    let new: Vec<_> = members.iter().filter(is_new).cloned().collect();
    let left = tx.invocation().remaining();
    let mut verdicts = if new.is_empty() { Vec::new() } else { bounded(left, handle(tx, &new)).await? }.into_iter();
    let (mut all, mut applied) = (Vec::with_capacity(members.len()), Vec::new());
    for member in members {
        let verdict = match member.input.id() {
            Err(error) => Err(error),
            Ok(id) if known.contains(&id) => Ok(()),
            Ok(id) => {
                let verdict = verdicts.next().unwrap_or_else(|| Err(Error::internal(anyhow::anyhow!("no verdict"))));
                if verdict.is_ok() {
                    applied.push(id);
                }
                verdict
            }
        };
        all.push(verdict);
    }
    if applied.is_empty() || receipt::put_in_inbox(tx, consumer, &applied).await? { Ok(Some(all)) } else { Ok(None) }
}
