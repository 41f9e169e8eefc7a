//! What exists on the broker: one topic exchange for events, a quorum queue for each consuming handler, and a parking
//! queue for messages that can't be handled.
//!
//! Whoever publishes declares all of it: an event published before its consumer has ever started still finds its queue.
//! Each consumer declares its own. A queue that is there with other arguments is its consumer's affair, and nobody
//! else's. Declarations are the same on RabbitMQ 3.10 and on 4.x.
use super::Channel;
use crate::{
    Class, Error, Result,
    base::spec::{Spec, Trigger},
};
use lapin::{
    Connection, ExchangeKind,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
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

    /// Every queue, and the exchange and the routing keys by which it gets its messages.
    fn queues(&self) -> impl Iterator<Item = Declared<'_>> {
        let parking =
            Declared { queue: self.parking_queue(), exchange: self.parking_exchange(), keys: &[""], parks: false };
        let own = self.consumers.iter().map(|(handler, keys)| Declared {
            queue: self.queue(handler),
            exchange: self.events_exchange(),
            keys,
            parks: true,
        });
        std::iter::once(parking).chain(own)
    }

    /// The names of all queues.
    pub(crate) fn queue_names(&self) -> Vec<String> {
        self.queues().map(|declared| declared.queue).collect()
    }

    fn kind_of(&self, exchange: &str) -> ExchangeKind {
        if exchange == self.events_exchange() { ExchangeKind::Topic } else { ExchangeKind::Fanout }
    }

    /// Declares everything. What can't be declared is mentioned, and left to those who need it: they alone wait.
    pub(crate) async fn declare_all(&self, connection: &Connection) -> Result<()> {
        let opened = |error| refused("RabbitMQ opens no channel", error);
        for exchange in [self.events_exchange(), self.parking_exchange()] {
            let channel = Channel::open(connection, "declare").await.map_err(opened)?;
            match channel.declare_exchange(&exchange, self.kind_of(&exchange)).await {
                Ok(()) => drop(channel.close("declared").await),
                Err(error) => tracing::error!(exchange, %error, "an exchange can't be declared"),
            }
        }
        for declared in self.queues() {
            // A channel of its own: the first declaration that is refused closes it.
            let channel = Channel::open(connection, "declare").await.map_err(opened)?;
            match self.declare(&channel, &declared).await {
                Ok(()) => drop(channel.close("declared").await),
                Err(error) => {
                    tracing::error!(queue = declared.queue, %error, "a queue can't be declared: its consumer waits");
                }
            }
        }
        Ok(())
    }

    /// Declares the queue of one of the consumers.
    pub(crate) async fn declare_own_queue(&self, channel: &Channel, queue: &str) -> Result<()> {
        for declared in self.queues().filter(|declared| declared.queue == queue) {
            let error = match self.declare(channel, &declared).await {
                Ok(()) => continue,
                Err(error) => error,
            };
            return Err(refused(
                format!("the queue {queue} can't be declared: is it, or its exchange, there with other arguments?"),
                error,
            ));
        }
        Ok(())
    }

    async fn declare(
        &self,
        channel: &Channel,
        Declared { queue, exchange, keys, parks }: &Declared<'_>,
    ) -> lapin::Result<()> {
        let parking = self.parking_exchange();
        channel.declare_exchange(exchange, self.kind_of(exchange)).await?;
        declare_queue(channel, queue, parks.then_some(&parking)).await?;
        for key in *keys {
            channel.bind(queue, exchange, key).await?;
        }
        Ok(())
    }

    /// Declares a queue without a name of ours, for the life of its connection, that gets every event with one of these
    /// keys.
    pub(crate) async fn declare_listener(&self, channel: &Channel, keys: &[&str]) -> Result<String> {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let declared = channel.declare_queue("", options, FieldTable::default()).await;
        let declared = declared.map_err(|error| refused("no queue of our own", error))?;
        let queue = declared.name().to_string();
        for key in keys {
            let bound = channel.bind(&queue, &self.events_exchange(), key).await;
            bound.map_err(|error| refused("no worker has declared the events' exchange yet", error))?;
        }
        Ok(queue)
    }
}

/// A queue as it is declared.
struct Declared<'a> {
    queue: String,
    exchange: String,
    keys: &'a [&'static str],
    /// True if what can't be delivered goes to the parking queue.
    parks: bool,
}

fn refused(what: impl Into<String>, error: lapin::Error) -> Error {
    Error::new(Class::Unavailable, what.into()).with_source(error)
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
    channel.declare_queue(name, QueueDeclareOptions::durable(), arguments).await.map(drop)
}
