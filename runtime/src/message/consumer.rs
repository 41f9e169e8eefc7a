//! The consumer of one handler: a connection, a channel and a queue, built anew whenever one of them breaks.
use super::{apply::apply, batched, delivery::Received};
use crate::{
    Error, Io, Member, Result, Runtime, Tx, backoff, batch::Verdicts, broker::Consuming, error::Disposition, fault,
    invoke::invoke, spec::Spec,
};
use futures_util::future::BoxFuture;
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

/// Messages delivered ahead, for each that is handled at the same time. Without a limit the client would buffer the whole
/// queue; with a high one, a consumer that dies would count a delivery against many messages that are not to blame.
const PREFETCH_PER_SLOT: usize = 2;
/// Pauses grow from the first to the second, between connections and between tries of one message.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A batch's verdicts, on their way.
pub(super) type Deciding<'a> = BoxFuture<'a, Result<Verdicts<()>>>;
pub(super) type HandleTx = for<'a> fn(&'a mut Tx, &'a [Member<Received>]) -> Deciding<'a>;
type HandleIo = for<'a> fn(&'a Io, &'a [Member<Received>]) -> Deciding<'a>;

/// A handler with its types forgotten, so that the consumer is compiled once.
#[derive(Clone, Copy)]
pub(crate) enum Erased {
    Tx(HandleTx),
    Io(HandleIo),
}

#[derive(Clone, Copy)]
pub(super) struct Consumer {
    pub(super) spec: &'static Spec,
    pub(super) handler: Erased,
}

impl Consumer {
    /// One try at one message.
    pub(super) async fn consume(self, runtime: &Runtime, received: Received) -> Result<()> {
        let invocation = received.invocation(self.spec.limits.timeout);
        let (inner, run) = (runtime.clone(), invocation.clone());
        invoke(runtime, self.spec, invocation, async move {
            let alone = [Member { input: received, invocation: run }];
            let mut verdicts = apply(&inner, self, &alone).await?;
            verdicts.pop().unwrap_or_else(|| Err(Error::internal(anyhow::anyhow!("no verdict was given"))))
        })
        .await
    }
}

/// Consumes until the drain.
pub(crate) async fn run(runtime: Runtime, spec: &'static Spec, handler: Erased) {
    let consumer = Consumer { spec, handler };
    let tasks = runtime.tasks().clone();
    let mut failures = 0;
    while !tasks.draining().is_cancelled() {
        let Err(error) = session(&runtime, consumer, &mut failures).await else {
            return;
        };
        failures += 1;
        tracing::warn!(handler = spec.name, error = format!("{error:#}"), "the consumer will connect again");
        tasks.pause(backoff::pause(failures, PAUSES.0, PAUSES.1)).await;
    }
}

/// One connection's life. Ok when it ended because of the drain.
async fn session(runtime: &Runtime, consumer: Consumer, failures: &mut u32) -> anyhow::Result<()> {
    let connection = Arc::new(runtime.broker().connect(consumer.spec.name).await?);
    let channel = connection.create_channel().await?;
    runtime.topology().declare_own_queue(&channel, &runtime.topology().queue(consumer.spec.name)).await?;
    channel.close(200, "declared".into()).await.ok();
    *failures = 0;
    if let Some(limits) = consumer.spec.batch {
        batched::work(runtime, consumer, limits, &connection).await?;
    } else {
        while over_channel(runtime, consumer, &connection).await? == Ended::Idle {}
    }
    if let Err(error) = connection.close(200, "drained".into()).await {
        tracing::info!(%error, "the consumer's connection ended before it was closed");
    }
    Ok(())
}

/// Why a channel is consumed over no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The drain has begun.
    Drain,
    /// Nothing has come for long: see [`Consuming`].
    Idle,
}

/// One channel's life.
async fn over_channel(runtime: &Runtime, consumer: Consumer, connection: &Arc<Connection>) -> anyhow::Result<Ended> {
    let (tag, prefetch) = (consumer.spec.name, consumer.spec.limits.concurrency * PREFETCH_PER_SLOT);
    let channel = connection.create_channel().await?;
    let mut deliveries = consume(runtime, connection, consumer.spec.name, &channel, (tag, prefetch)).await?;
    let in_flight = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(consumer.spec.limits.concurrency));
    let ended = loop {
        // A slot first: what is not being handled stays in the prefetch, and goes back to the queue at a drain.
        let slot = slots.clone().acquire_owned().await?;
        let delivery = tokio::select! {
            biased;
            () = runtime.tasks().draining().cancelled() => break Ended::Drain,
            // Whoever has a free slot has taken fewer than the broker may deliver.
            delivery = deliveries.next(true) => delivery?,
        };
        let Some(delivery) = delivery else { break Ended::Idle };
        let handled = handle(runtime.clone(), consumer, delivery, slot);
        runtime.tasks().spawn(in_flight.track_future(handled));
    };
    leave(&channel, tag, &in_flight).await;
    Ok(ended)
}

/// Begins to consume the handler's queue as `tag`, with so many messages delivered ahead.
pub(super) async fn consume(
    runtime: &Runtime,
    connection: &Arc<Connection>,
    handler: &str,
    channel: &Channel,
    (tag, prefetch): (&str, usize),
) -> anyhow::Result<Consuming> {
    channel.basic_qos(u16::try_from(prefetch).unwrap_or(u16::MAX), BasicQosOptions::default()).await?;
    let queue = runtime.topology().queue(handler);
    let options = BasicConsumeOptions::default();
    let deliveries = channel.basic_consume(queue.as_str().into(), tag.into(), options, FieldTable::default()).await?;
    Ok(Consuming::new(deliveries, connection.clone(), runtime.topology().clone(), queue))
}

/// Stops deliveries, lets what is in flight be acknowledged, and closes; the rest goes back to the queue.
pub(super) async fn leave(channel: &Channel, tag: &str, in_flight: &TaskTracker) {
    let cancelled = channel.basic_cancel(tag.into(), BasicCancelOptions::default()).await;
    in_flight.close();
    in_flight.wait().await;
    let closed = channel.close(200, "left".into()).await;
    if let Err(error) = cancelled.and(closed) {
        tracing::info!(%error, "the consumer's channel ended before it was closed");
    }
}

/// Sees one delivery to its end: acknowledged, or (at a drain) left to be delivered again.
async fn handle(runtime: Runtime, consumer: Consumer, delivery: Delivery, _slot: OwnedSemaphorePermit) {
    if !see_through(&runtime, consumer, &Received::of(&delivery)).await {
        return;
    }
    fault::point(consumer.spec.name, "before_ack");
    if let Err(error) = delivery.acker.ack(BasicAckOptions::default()).await {
        tracing::info!(handler = consumer.spec.name, %error, "not acknowledged; it will be delivered again and found done");
    }
}

/// Tries one message by itself until it is applied or parked. False where a drain begins first.
pub(super) async fn see_through(runtime: &Runtime, consumer: Consumer, received: &Received) -> bool {
    let (mut tries, mut faults) = (0_u32, 0_u32);
    loop {
        let Err(error) = consumer.consume(runtime, received.clone()).await else {
            return true;
        };
        tries += 1;
        faults += u32::from(error.class().disposition() == Disposition::RetryThenGiveUp);
        let hopeless = error.class().disposition() == Disposition::GiveUp || faults > consumer.spec.limits.retries;
        if hopeless && park(runtime, consumer.spec, received, &error).await {
            return true;
        }
        if !runtime.tasks().pause(backoff::pause(tries, PAUSES.0, PAUSES.1)).await {
            return false;
        }
    }
}

async fn park(runtime: &Runtime, spec: &Spec, received: &Received, error: &Error) -> bool {
    match runtime.publisher().park(received.parked(spec.name, error, runtime.contracts())).await {
        Ok(()) => {
            tracing::error!(handler = spec.name, message_id = ?received.message_id, %error, "the message is parked");
            true
        }
        Err(publish) => {
            tracing::warn!(handler = spec.name, %publish, "the message can't be parked yet");
            false
        }
    }
}
