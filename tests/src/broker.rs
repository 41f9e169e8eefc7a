//! The test's own look at the broker.
use crate::eventually;
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions, QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use std::collections::BTreeSet;

/// The exchange of events.
const EVENTS: &str = "gavel.events";

/// A connection to the test's vhost.
#[derive(Debug)]
pub struct Broker {
    connection: Connection,
    channel: Channel,
}

impl Broker {
    /// Connects.
    pub async fn connect(url: &str) -> Self {
        Self::reach(url).await.expect("the broker answers")
    }

    /// Connects as soon as it can: it may be about to be started again.
    pub async fn once_it_is_there(url: &str) -> Self {
        let reached = || async { Self::reach(url).await };
        eventually("the broker can be reached", reached, Result::is_ok).await.expect("it can")
    }

    async fn reach(url: &str) -> lapin::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { connection, channel })
    }

    /// A queue that gets a copy of every event from now on, whether a process of Gavel's has come by yet or not.
    pub async fn tap(&self, queue: &str) {
        // A worker's signs of life are no events.
        self.tap_exchange(EVENTS, queue, &["item.#", "bid.#"]).await;
    }

    /// As [`Broker::tap`], of another exchange of events.
    pub async fn tap_exchange(&self, exchange: &str, queue: &str, keys: &[&str]) {
        self.declare_topic(exchange).await;
        let (name, durable) = (ShortString::from(queue), QueueDeclareOptions::durable());
        self.channel.queue_declare(name.clone(), durable, FieldTable::default()).await.expect("declared");
        for key in keys {
            let (queue, options) = (name.clone(), QueueBindOptions::default());
            let bound = self.channel.queue_bind(queue, exchange.into(), (*key).into(), options, FieldTable::default());
            bound.await.expect("bound");
        }
    }

    /// Takes all messages from the queue, and gives their ids.
    pub async fn take_ids(&self, queue: &str) -> BTreeSet<String> {
        let (count, _) = self.depth(queue).await;
        let taken = self.take(queue, count as usize).await;
        taken.iter().filter_map(|delivery| Some(delivery.properties.message_id().as_ref()?.to_string())).collect()
    }

    /// Takes that many messages from the queue.
    pub async fn take(&self, queue: &str, count: usize) -> Vec<Delivery> {
        let consume =
            self.channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let mut deliveries = consume.await.expect("consuming");
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let next = tokio::time::timeout(std::time::Duration::from_secs(40), deliveries.next()).await;
            let delivery = next.unwrap_or_else(|_| panic!("{} of {count} messages came", taken.len()));
            let delivery = delivery.expect("the consumer lives").expect("a delivery");
            delivery.acker.ack(BasicAckOptions::default()).await.expect("acknowledged");
            taken.push(delivery);
        }
        let cancelled = self.channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default()).await;
        cancelled.expect("the next who takes gets what is left");
        taken
    }

    /// Messages waiting in the queue (those being handled not counted), and consumers of it.
    pub async fn depth(&self, queue: &str) -> (u32, u32) {
        self.depth_if_there(queue).await.expect("the queue is there")
    }

    /// As [`Broker::depth`], of a queue that may not be there.
    pub async fn depth_if_there(&self, queue: &str) -> Option<(u32, u32)> {
        // Who asks for one that is not there loses the channel.
        let channel = self.connection.create_channel().await.expect("a channel");
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(queue.into(), look, FieldTable::default()).await.ok()?;
        let depth = (queue.message_count(), queue.consumer_count());
        channel.close(200, "looked".into()).await.expect("closed");
        Some(depth)
    }

    /// Takes a route away.
    pub async fn unbind(&self, queue: &str, routing_key: &str) {
        let (queue, key) = (ShortString::from(queue), ShortString::from(routing_key));
        let unbound = self.channel.queue_unbind(queue, EVENTS.into(), key, FieldTable::default()).await;
        unbound.expect("unbound");
    }

    /// Deletes the exchange of events with all that is bound to it, and declares it again, as somebody who tidies up
    /// does.
    pub async fn replace_events(&self) {
        self.channel.exchange_delete(EVENTS.into(), ExchangeDeleteOptions::default()).await.expect("deleted");
        self.declare_topic(EVENTS).await;
    }

    async fn declare_topic(&self, exchange: &str) {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared =
            self.channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default());
        declared.await.expect("the exchange is as Gavel declares it");
    }

    /// Declares a queue that is not as Gavel declares it.
    pub async fn declare_otherwise(&self, queue: &str) {
        let declared = self.channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default());
        declared.await.expect("declared");
    }

    /// Declares an exchange that is not as Gavel declares it.
    pub async fn declare_exchange_otherwise(&self, exchange: &str) {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared =
            self.channel.exchange_declare(exchange.into(), ExchangeKind::Direct, durable, FieldTable::default());
        declared.await.expect("declared");
    }

    /// Deletes a consumer's queue and declares it again at once, as Gavel would: whoever consumed it hears of nothing.
    pub async fn replace(&self, queue: &str, keys: &[&str]) {
        self.delete(queue).await;
        let mut arguments = FieldTable::default();
        for (name, value) in [
            ("x-queue-type", AMQPValue::LongString("quorum".into())),
            ("x-delivery-limit", AMQPValue::LongInt(100)),
            ("x-dead-letter-exchange", AMQPValue::LongString("gavel.parking".into())),
            ("x-dead-letter-strategy", AMQPValue::LongString("at-least-once".into())),
            ("x-overflow", AMQPValue::LongString("reject-publish".into())),
        ] {
            arguments.insert(name.into(), value);
        }
        let declared = self.channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await;
        declared.expect("declared");
        for key in keys {
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            let bound = self.channel.queue_bind(queue.into(), EVENTS.into(), (*key).into(), options, arguments).await;
            bound.expect("bound");
        }
    }

    /// Deletes the queue.
    pub async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }

    /// Empties the queue.
    pub async fn purge(&self, queue: &str) {
        self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.expect("purged");
    }

    /// Looks at one message without a wait.
    pub async fn get(&self, queue: &str) -> Option<Delivery> {
        let message = self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.expect("asked");
        message.map(|message| message.delivery)
    }

    /// Publishes bytes as an event.
    pub async fn publish(&self, routing_key: &str, message_id: &str, payload: &[u8]) {
        self.publish_typed(routing_key, message_id, "gavel.events.v1.ItemEvent", payload).await;
    }

    /// Publishes bytes as a message of that type.
    pub async fn publish_typed(&self, routing_key: &str, message_id: &str, message_type: &str, payload: &[u8]) {
        let properties = BasicProperties::default().with_message_id(message_id.into()).with_type(message_type.into());
        self.publish_with(routing_key, properties.with_delivery_mode(2), payload).await;
    }

    /// Publishes what was delivered once more.
    pub async fn replay(&self, delivery: &Delivery) {
        self.publish_with(delivery.routing_key.as_str(), delivery.properties.clone(), &delivery.data).await;
    }

    async fn publish_with(&self, routing_key: &str, properties: BasicProperties, payload: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = self.channel.basic_publish(EVENTS.into(), routing_key.into(), options, payload, properties);
        let confirmation = sent.await.expect("published").await.expect("confirmed");
        assert!(confirmation.is_ack() && confirmation.take_message().is_none(), "the message has no queue");
    }
}

/// A header of a delivery, as text.
pub fn header(delivery: &Delivery, name: &str) -> Option<String> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}
