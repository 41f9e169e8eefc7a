//! A channel to the broker. Whatever is done over it crosses the boundary, in the name of the handler that does it, and
//! has its time: over a connection that is lost in the very moment the client library may wait for ever.
#![expect(clippy::disallowed_types, reason = "it is the adapter")]
use super::short;
use crate::base::boundary::{Operation, crossing, planted};
use lapin::{
    BasicProperties, Confirmation, Connection, Consumer, ExchangeKind, PublisherConfirm, Queue, Result,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use std::{io, time::Duration};

/// A broker that takes longer over a call has lost us.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// One channel. It is closed when it is dropped, without a word.
#[derive(Clone)]
pub(crate) struct Channel {
    inner: lapin::Channel,
    handler: &'static str,
}

impl Channel {
    /// Opens one, in the name of that handler.
    pub(crate) async fn open(connection: &Connection, handler: &'static str) -> Result<Self> {
        let inner = call(handler, "open_channel", connection.create_channel()).await?;
        Ok(Self { inner, handler })
    }

    /// The same, in the name of another handler.
    pub(super) fn on_behalf_of(self, handler: &'static str) -> Self {
        Self { handler, ..self }
    }

    /// True until either side has closed it.
    pub(super) fn is_open(&self) -> bool {
        self.inner.status().connected()
    }

    /// From here on the broker confirms what is published.
    pub(super) async fn confirm_select(&self) -> Result<()> {
        self.does("confirm_select", self.inner.confirm_select(ConfirmSelectOptions::default())).await
    }

    /// Sends a message, that is returned where no queue gets it.
    pub(super) async fn publish(
        &self,
        (exchange, key): (&str, &str),
        payload: &[u8],
        properties: BasicProperties,
    ) -> Result<PublisherConfirm> {
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = self.inner.basic_publish(short(exchange), short(key), mandatory, payload, properties);
        self.does("publish", sent).await
    }

    /// Waits until the broker has said what became of it.
    pub(super) async fn confirmed(&self, sent: PublisherConfirm) -> Result<Confirmation> {
        if planted::confirms_at_once() {
            return Ok(Confirmation::Ack(None));
        }
        self.does("confirm", sent).await
    }

    /// Limits what is delivered ahead, to those who begin to consume from here on.
    pub(crate) async fn prefetch(&self, count: u16) -> Result<()> {
        self.does("prefetch", self.inner.basic_qos(count, BasicQosOptions::default())).await
    }

    /// Begins to consume.
    pub(crate) async fn consume(&self, queue: &str, tag: &str, exclusive: bool) -> Result<Consumer> {
        let no_ack = planted::takes_on_delivery();
        let options = BasicConsumeOptions { exclusive, no_ack, ..BasicConsumeOptions::default() };
        let begun = self.inner.basic_consume(short(queue), short(tag), options, FieldTable::default());
        self.does("consume", begun).await
    }

    /// Stops consuming; what was delivered is still to be acknowledged.
    pub(crate) async fn cancel(&self, tag: &str) -> Result<()> {
        self.does("cancel", self.inner.basic_cancel(short(tag), BasicCancelOptions::default())).await
    }

    /// Acknowledges that delivery, and all before it.
    pub(crate) async fn acknowledge_up_to(&self, delivery_tag: u64) -> Result<()> {
        if planted::takes_on_delivery() {
            return Ok(());
        }
        self.does("ack", self.inner.basic_ack(delivery_tag, BasicAckOptions { multiple: true })).await
    }

    pub(super) async fn declare_exchange(&self, name: &str, kind: ExchangeKind) -> Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = self.inner.exchange_declare(short(name), kind, durable, FieldTable::default());
        self.does("declare_exchange", declared).await
    }

    pub(super) async fn declare_queue(
        &self,
        name: &str,
        options: QueueDeclareOptions,
        arguments: FieldTable,
    ) -> Result<Queue> {
        self.does("declare_queue", self.inner.queue_declare(short(name), options, arguments)).await
    }

    pub(super) async fn bind(&self, queue: &str, exchange: &str, key: &str) -> Result<()> {
        let (queue, exchange, key) = (short(queue), short(exchange), short(key));
        let bound = self.inner.queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default());
        self.does("bind", bound).await
    }

    /// Closes it.
    pub(crate) async fn close(&self, why: &str) -> Result<()> {
        self.does("close_channel", self.inner.close(200, short(why))).await
    }

    async fn does<T>(&self, verb: &'static str, act: impl Future<Output = Result<T>>) -> Result<T> {
        call(self.handler, verb, act).await
    }
}

/// Acknowledges a delivery, or with `multiple` all of its channel up to it.
pub(crate) async fn acknowledge(handler: &'static str, delivery: &Delivery, multiple: bool) -> Result<()> {
    if planted::takes_on_delivery() {
        return Ok(());
    }
    call(handler, "ack", delivery.acker.ack(BasicAckOptions { multiple })).await.map(drop)
}

async fn call<T>(handler: &'static str, verb: &'static str, act: impl Future<Output = Result<T>>) -> Result<T> {
    let in_time = async { tokio::time::timeout(CALL_TIMEOUT, act).await };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("RabbitMQ did not take {verb} in {CALL_TIMEOUT:?}"));
    crossing(handler, Operation::Broker(verb), in_time).await.map_err(late)?
}
