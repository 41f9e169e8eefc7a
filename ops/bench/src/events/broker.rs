//! A bare publisher and consumer, without anything of the runtime's.
use crate::Measured;
use futures_util::StreamExt;
use gavel_runtime::ids;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, PublisherConfirm,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
        QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const EXCHANGE: &str = "gavel.events";
const QUEUES: [&str; 2] = ["gavel.apply_user_stats", "gavel.project_item"];
/// Messages that have no confirm yet.
const IN_FLIGHT: usize = 512;

pub(crate) struct Broker {
    connection: Connection,
    channel: Channel,
}

/// A consumer of every event.
pub(crate) struct Tap(Consumer);

impl Tap {
    /// The next one's bytes; none when none comes for so long.
    pub(crate) async fn next(&mut self, patience: Duration) -> anyhow::Result<Option<Vec<u8>>> {
        match tokio::time::timeout(patience, self.0.next()).await {
            Ok(Some(delivery)) => Ok(Some(delivery?.data)),
            _ => Ok(None),
        }
    }
}

impl Broker {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { connection, channel })
    }

    /// Returns whether the consumers' queues are there.
    pub(crate) async fn is_declared(&self) -> bool {
        // Asking for what is not there costs the channel.
        let Ok(channel) = self.connection.create_channel().await else { return false };
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(QUEUES[1].into(), look, FieldTable::default()).await.is_ok()
    }

    pub(crate) async fn purge(&self) -> anyhow::Result<()> {
        for queue in QUEUES {
            self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
        }
        Ok(())
    }

    pub(crate) async fn tap(&self) -> anyhow::Result<Tap> {
        let channel = self.connection.create_channel().await?;
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare("bench.tap".into(), exclusive, FieldTable::default()).await?;
        let bind = QueueBindOptions::default();
        channel.queue_bind("bench.tap".into(), EXCHANGE.into(), "bid.#".into(), bind, FieldTable::default()).await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        Ok(Tap(channel.basic_consume("bench.tap".into(), "".into(), options, FieldTable::default()).await?))
    }

    /// Publishes so many events, as the relay would, as fast as confirms come.
    pub(crate) async fn publish_events(&self, count: u32, payload: &[u8]) -> anyhow::Result<Measured> {
        self.publish(EXCHANGE, "bid.accepted", count, |_| payload.to_vec()).await
    }

    /// Publishes so many messages to one queue.
    pub(crate) async fn publish_to(
        &self,
        queue: &str,
        count: u32,
        payload: impl Fn(u32) -> Vec<u8>,
    ) -> anyhow::Result<Measured> {
        self.publish("", queue, count, payload).await
    }

    async fn publish(
        &self,
        exchange: &str,
        key: &str,
        count: u32,
        payload: impl Fn(u32) -> Vec<u8>,
    ) -> anyhow::Result<Measured> {
        let began = Instant::now();
        let mut in_flight: VecDeque<PublisherConfirm> = VecDeque::new();
        for n in 0..count {
            if in_flight.len() >= IN_FLIGHT {
                confirmed(in_flight.pop_front()).await?;
            }
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let (exchange, key) = (ShortString::from(exchange), ShortString::from(key));
            in_flight.push_back(self.channel.basic_publish(exchange, key, options, &payload(n), properties()).await?);
        }
        while !in_flight.is_empty() {
            confirmed(in_flight.pop_front()).await?;
        }
        Ok(Measured { jobs: count.into(), took: began.elapsed() })
    }
}

async fn confirmed(confirm: Option<PublisherConfirm>) -> anyhow::Result<()> {
    if let Some(confirm) = confirm {
        let confirmation = confirm.await?;
        anyhow::ensure!(confirmation.is_ack() && confirmation.take_message().is_none(), "not stored");
    }
    Ok(())
}

/// As many and as large as the relay's.
fn properties() -> BasicProperties {
    let (id, correlation_id) = (ids::random().to_string(), ids::random().to_string());
    let mut headers = FieldTable::default();
    headers.insert("x-correlation-id".into(), AMQPValue::LongString(correlation_id.as_str().into()));
    headers.insert("traceparent".into(), AMQPValue::LongString(correlation_id.as_str().into()));
    BasicProperties::default()
        .with_content_type("application/protobuf".into())
        .with_type("gavel.events.v1.ItemEvent".into())
        .with_delivery_mode(2)
        .with_message_id(id.as_str().into())
        .with_correlation_id(correlation_id.as_str().into())
        .with_headers(headers)
}
