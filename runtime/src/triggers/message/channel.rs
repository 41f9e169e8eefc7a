//! A consumer's channel: how it is begun, and left.
use crate::{
    Runtime,
    rabbitmq::{Channel, Consuming},
};
use lapin::Connection;
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
    channel.prefetch(u16::try_from(prefetch).unwrap_or(u16::MAX)).await?;
    let queue = runtime.topology().queue(handler);
    let deliveries = channel.consume(&queue, tag, false).await?;
    Ok(Consuming::new(deliveries, connection.clone(), runtime.topology().clone(), queue))
}

/// Stops deliveries, lets what is in flight be acknowledged, and closes; the rest goes back to the queue.
pub(super) async fn leave(channel: &Channel, tag: &str, in_flight: &TaskTracker) {
    let cancelled = channel.cancel(tag).await;
    in_flight.close();
    in_flight.wait().await;
    let closed = channel.close("left").await;
    if let Err(error) = cancelled.and(closed) {
        tracing::info!(%error, "the consumer's channel ended before it was closed");
    }
}
