//! Publishing with confirms: a message counts as published when the broker has said so, and not before.
use super::{BrokerUrl, Topology, short};
use crate::invocation::{CORRELATION_HEADER, TRACEPARENT_HEADER};
use anyhow::{Context, ensure};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Mutex;
use uuid::Uuid;

/// A batch that is not confirmed by then counts as lost: the connection may be blocked by an alarm.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// AMQP message id.
    pub message_id: Uuid,
    /// Where to.
    pub routing_key: String,
    /// The protobuf message's full name, the AMQP type.
    pub message_type: String,
    /// The encoded message.
    pub payload: Vec<u8>,
    /// Goes into the header of that name and the AMQP correlation id.
    pub correlation_id: String,
    /// Goes into the header of that name.
    pub traceparent: String,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

/// Why a message is not known to be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker did not store it. The same again may work.
    #[error("the broker refused the message (nack)")]
    Refused,
    /// The broker took it, and no queue is bound for it.
    #[error("no queue is bound for the message: {0}")]
    Unroutable(String),
    /// No confirm came. The broker may have it.
    #[error("no confirm came: {0}")]
    Unconfirmed(String),
}

/// Publishes over one connection: each batch over a channel of its own, in order.
#[derive(Clone)]
pub struct Publisher {
    url: BrokerUrl,
    topology: Topology,
    link: Arc<Mutex<Link>>,
    /// What came of the last contact with the broker.
    last: Arc<std::sync::Mutex<Result<(), String>>>,
    name: String,
}

/// The connection, and its channels that nobody publishes over at the moment.
#[derive(Default)]
struct Link {
    connection: Option<Arc<Connection>>,
    idle: Vec<Channel>,
    /// Counts connections, so that a channel of an earlier one is told apart.
    generation: u64,
}

impl Publisher {
    pub(crate) fn new(url: BrokerUrl, topology: Topology, process: &str) -> Self {
        Self {
            url,
            topology,
            link: Arc::default(),
            last: Arc::new(std::sync::Mutex::new(Ok(()))),
            name: format!("{process} publisher"),
        }
    }

    /// Publishes events in their order, all in flight at once, and says of each what became of it.
    pub async fn publish_events(&self, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
        self.publish(&self.topology.events_exchange(), messages).await
    }

    /// Publishes one message to the parking queue.
    pub(crate) async fn park(&self, message: Outgoing) -> Result<(), PublishError> {
        let exchange = self.topology.parking_exchange();
        let mut results = self.publish(&exchange, &[message]).await;
        results.pop().unwrap_or_else(|| Err(PublishError::Unconfirmed("nothing was published".to_owned())))
    }

    /// Publishes one message to a consuming handler's queue, and to no other.
    pub(crate) async fn send_to(&self, handler: &str, message: Outgoing) -> Result<(), PublishError> {
        let message = Outgoing { routing_key: self.topology.queue(handler), ..message };
        let mut results = self.publish("", &[message]).await;
        results.pop().unwrap_or_else(|| Err(PublishError::Unconfirmed("nothing was published".to_owned())))
    }

    /// Whether the broker can be reached now: connects where there is no connection. While another is connecting, what
    /// was found last.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        let Ok(mut link) = self.link.try_lock() else {
            return self.last().clone().map_err(anyhow::Error::msg);
        };
        let connected = self.connected(&mut link).await;
        *self.last() = connected.as_ref().map(|_| ()).map_err(|error| format!("{error:#}"));
        connected.map(drop)
    }

    fn last(&self) -> MutexGuard<'_, Result<(), String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn publish(&self, exchange: &str, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
        let (mut generation, mut lent) = (None, None);
        let publish = async {
            let channel = self.lend(&mut generation).await.map_err(|error| format!("{error:#}"));
            Ok(publish_over(lent.insert(channel?), exchange, messages).await)
        };
        let published = tokio::time::timeout(PUBLISH_TIMEOUT, publish).await;
        let published = published.unwrap_or_else(|_| Err(format!("not within {PUBLISH_TIMEOUT:?}")));
        let results = published.unwrap_or_else(|why| {
            let unconfirmed = PublishError::Unconfirmed(why);
            messages.iter().map(|_| Err(unconfirmed.clone())).collect()
        });
        let doubt = results.iter().find_map(|result| match result {
            Err(PublishError::Unconfirmed(why)) => Some(why.clone()),
            _ => None,
        });
        if let Some(generation) = generation {
            // A connection that gives no channel in time is as doubtful as a batch that is not confirmed.
            self.take_back(generation, lent.filter(|_| doubt.is_none())).await;
        }
        *self.last() = doubt.map_or(Ok(()), Err);
        results
    }

    /// A channel that nobody else publishes over until it is given back: a returned message may come attached to any
    /// confirm of its channel. Says which connection it is of before that connection is asked for one.
    async fn lend(&self, generation: &mut Option<u64>) -> anyhow::Result<Channel> {
        let mut link = self.link.lock().await;
        let connection = self.connected(&mut link).await?;
        *generation = Some(link.generation);
        while let Some(channel) = link.idle.pop() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        // Others may publish meanwhile.
        drop(link);
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// Takes a channel back, or none of a connection in doubt.
    async fn take_back(&self, generation: u64, channel: Option<Channel>) {
        let mut link = self.link.lock().await;
        if generation != link.generation {
            return;
        }
        if let Some(channel) = channel {
            link.idle.push(channel);
        } else if !link.connection.as_ref().is_some_and(|connection| connection.status().blocked()) {
            // What is in flight on a link in doubt would confuse the next batch: build a new one. But not while an alarm
            // blocks it: a new one would be blocked as well, and this one can't even say goodbye.
            link.forget();
        }
    }

    async fn connected(&self, link: &mut Link) -> anyhow::Result<Arc<Connection>> {
        let stands = link.connection.as_ref().is_some_and(|connection| connection.status().connected());
        if !stands {
            link.forget();
            let connection = self.url.connect(&self.name).await?;
            let channel = connection.create_channel().await?;
            self.topology.declare(&channel).await.context("the topology can't be declared")?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            link.idle.push(channel);
            link.connection = Some(Arc::new(connection));
        }
        let connection = link.connection.clone().context("the connection is gone")?;
        ensure!(!connection.status().blocked(), "RabbitMQ blocks publishers: a memory or disk alarm");
        Ok(connection)
    }
}

impl Link {
    fn forget(&mut self) {
        self.connection = None;
        self.idle.clear();
        self.generation += 1;
    }
}

async fn publish_over(channel: &Channel, exchange: &str, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
    let mut confirms = Vec::with_capacity(messages.len());
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    for message in messages {
        let key = short(&message.routing_key);
        let sent = channel.basic_publish(short(exchange), key, mandatory, &message.payload, properties(message));
        confirms.push(sent.await);
    }
    let mut returned: HashMap<String, String> = HashMap::new();
    let mut results = Vec::with_capacity(messages.len());
    for confirm in confirms {
        let confirmation = match confirm {
            Ok(confirm) => confirm.await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        results.push(verdict(confirmation, &mut returned));
    }
    // A returned message may come attached to another message's confirm, so it is matched by its own id.
    for (message, result) in messages.iter().zip(&mut results) {
        if let Some(why) = returned.remove(&message.message_id.to_string()) {
            *result = Err(PublishError::Unroutable(why));
        }
    }
    results
}

/// The three arms of a confirm; returned messages are put aside by their id.
fn verdict(
    confirmation: Result<Confirmation, String>,
    returned: &mut HashMap<String, String>,
) -> Result<(), PublishError> {
    let (result, message) = match confirmation {
        Ok(Confirmation::Ack(message)) => (Ok(()), message),
        Ok(Confirmation::Nack(message)) => (Err(PublishError::Refused), message),
        Ok(Confirmation::NotRequested) => {
            return Err(PublishError::Unconfirmed("the channel is not in confirm mode".to_owned()));
        }
        Err(error) => return Err(PublishError::Unconfirmed(error)),
    };
    if let Some(message) = message {
        let id = message.delivery.properties.message_id().as_ref().map(ToString::to_string);
        returned.insert(id.unwrap_or_default(), message.reply_text.to_string());
    }
    result
}

fn properties(message: &Outgoing) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut put = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    put(CORRELATION_HEADER, &message.correlation_id);
    put(TRACEPARENT_HEADER, &message.traceparent);
    for (name, value) in &message.headers {
        put(name, value);
    }
    BasicProperties::default()
        .with_content_type("application/protobuf".into())
        .with_type(short(&message.message_type))
        .with_delivery_mode(2)
        .with_message_id(short(&message.message_id.to_string()))
        .with_correlation_id(short(&message.correlation_id))
        .with_headers(headers)
}
