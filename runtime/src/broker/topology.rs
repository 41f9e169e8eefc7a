//! What exists on the broker: one topic exchange for events, a quorum queue for each consuming handler, and a parking
//! queue for messages that can't be handled.
//!
//! Every process declares all of it, whichever handlers it runs: an event published before its consumer has ever
//! started still finds its queue. Declarations are the same on RabbitMQ 3.10 and on 4.x.
use super::short;
use crate::spec::{Spec, Trigger};
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

/// Deliveries of one message before the broker itself dead-letters it to the parking queue. A handler's own retries use
/// one; what counts is a consumer that dies, with every message it holds. Explicit, because RabbitMQ 4 would otherwise
/// stop at 20 and drop the message.
const DELIVERY_LIMIT: i32 = 100;
/// The same for the parking queue, where being looked at and put back counts as a delivery and nothing may be dropped.
const PARKING_DELIVERY_LIMIT: i32 = 1_000_000;

/// The names of one application's exchanges and queues.
#[derive(Debug, Clone)]
pub struct Topology {
    app: &'static str,
    consumers: Vec<(&'static str, &'static [&'static str])>,
}

impl Topology {
    pub(crate) fn of(app: &'static str, specs: impl Iterator<Item = &'static Spec>) -> Self {
        let consumers = specs.filter_map(|spec| match spec.trigger {
            Trigger::Message(keys) => Some((spec.name, keys)),
            _ => None,
        });
        Self { app, consumers: consumers.collect() }
    }

    /// The topic exchange of events.
    pub fn events_exchange(&self) -> String {
        format!("{}.events", self.app)
    }

    /// The fanout exchange in front of the parking queue.
    pub fn parking_exchange(&self) -> String {
        format!("{}.parking", self.app)
    }

    /// Where messages wait that no handler could take.
    pub fn parking_queue(&self) -> String {
        format!("{}.parked", self.app)
    }

    /// The queue of a consuming handler.
    pub fn queue(&self, handler: &str) -> String {
        format!("{}.{handler}", self.app)
    }

    /// Declares everything. Doing it again changes nothing.
    pub(crate) async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let (events, parking) = (self.events_exchange(), self.parking_exchange());
        declare_exchange(channel, &events, ExchangeKind::Topic).await?;
        declare_exchange(channel, &parking, ExchangeKind::Fanout).await?;
        declare_queue(channel, &self.parking_queue(), None).await?;
        bind(channel, &self.parking_queue(), &parking, "").await?;
        for (handler, keys) in &self.consumers {
            let queue = self.queue(handler);
            declare_queue(channel, &queue, Some(&parking)).await?;
            for key in *keys {
                bind(channel, &queue, &events, key).await?;
            }
        }
        Ok(())
    }
}

impl Topology {
    /// Declares a queue without a name of ours, for the life of its connection, that gets every event with one of these keys.
    pub(crate) async fn declare_own(&self, channel: &Channel, keys: &[&str]) -> lapin::Result<ShortString> {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?.name().clone();
        for key in keys {
            bind(channel, queue.as_str(), &self.events_exchange(), key).await?;
        }
        Ok(queue)
    }
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(short(name), kind, durable, FieldTable::default()).await
}

async fn declare_queue(channel: &Channel, name: &str, dead_letter_exchange: Option<&str>) -> lapin::Result<()> {
    let text = |value: &str| AMQPValue::LongString(value.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    let limit = if dead_letter_exchange.is_some() { DELIVERY_LIMIT } else { PARKING_DELIVERY_LIMIT };
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(limit));
    if let Some(exchange) = dead_letter_exchange {
        arguments.insert("x-dead-letter-exchange".into(), text(exchange));
        // Without these two, dead-lettering from a quorum queue may lose the message.
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments.insert("x-overflow".into(), text("reject-publish"));
    }
    channel.queue_declare(short(name), QueueDeclareOptions::durable(), arguments).await.map(drop)
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    let (queue, exchange, key) = (short(queue), short(exchange), short(key));
    channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default()).await
}
