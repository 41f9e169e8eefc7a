//! The consumer of one handler: a connection, a channel and a queue, built anew whenever one of them breaks.
use super::{
    batched,
    channel::{Ended, PAUSES, consume, leave},
    handler::{Consumer, ErasedConsumer},
    single::handle,
};
use crate::{
    Runtime,
    base::{backoff, spec::Spec},
    rabbitmq::{Channel, then_close},
};
use lapin::Connection;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Messages delivered ahead, for each that is handled at the same time. Without a limit the client would buffer the
/// whole queue; with a high one, a consumer that dies would count a delivery against many messages that are not to
/// blame.
const PREFETCH_PER_SLOT: usize = 2;
/// Consumes until the drain.
pub(crate) async fn run(runtime: Runtime, spec: &'static Spec, handler: ErasedConsumer) {
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
    then_close(&connection, over_connection(runtime, consumer, failures, &connection)).await
}

async fn over_connection(
    runtime: &Runtime,
    consumer: Consumer,
    failures: &mut u32,
    connection: &Arc<Connection>,
) -> anyhow::Result<()> {
    let channel = Channel::open(connection, consumer.spec.name).await?;
    runtime.topology().declare_own_queue(&channel, &runtime.topology().queue(consumer.spec.name)).await?;
    channel.close("declared").await.ok();
    *failures = 0;
    if let Some(limits) = consumer.spec.batch {
        batched::work(runtime, consumer, limits, connection).await?;
    } else {
        while over_channel(runtime, consumer, connection).await? == Ended::Idle {}
    }
    Ok(())
}

/// One channel's life.
async fn over_channel(runtime: &Runtime, consumer: Consumer, connection: &Arc<Connection>) -> anyhow::Result<Ended> {
    let (tag, prefetch) = (consumer.spec.name, consumer.spec.limits.concurrency * PREFETCH_PER_SLOT);
    let channel = Channel::open(connection, consumer.spec.name).await?;
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
