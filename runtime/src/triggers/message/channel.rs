//! A consumer's channel: how it is begun, and left.
use crate::{Runtime, rabbitmq::Consuming};
use lapin::{
    Channel, Connection,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{sync::Arc, time::Duration};
use tokio_util::task::TaskTracker;

/// Pauses grow from the first to the second, between connections and between tries of one message.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Why a channel is consumed over no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The drain has begun.
    Drain,
    /// Nothing has come for long: see [`Consuming`].
    Idle,
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
