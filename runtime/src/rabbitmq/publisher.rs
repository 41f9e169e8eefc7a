//! Publishing with confirms: a message counts as published when the broker has said so, and not before.
use super::{
    BrokerUrl, Channel, Topology,
    publish::{Published, publish_over},
    traced,
};
use crate::{Class, Error, Result};
use lapin::Connection;
use std::{
    collections::VecDeque,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Mutex;

pub use super::publish::{Outgoing, PublishError};

/// A batch that is not confirmed by then counts as lost: the connection may be blocked by an alarm.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes over one connection: each batch over a channel of its own, in order.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
    /// In whose name it publishes.
    handler: &'static str,
}

struct Inner {
    url: BrokerUrl,
    topology: Topology,
    link: Mutex<Link>,
    /// What came of the last contact with the broker.
    last: std::sync::Mutex<Result<(), Error>>,
    name: String,
    /// True if it declares what it publishes to.
    declares: bool,
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
    /// Of a process that publishes; one that does not declares nothing, and only knows whether the broker is there.
    pub(crate) fn new(url: BrokerUrl, topology: Topology, process: &str, publishes: bool) -> Self {
        let inner = Arc::new(Inner {
            url,
            topology,
            link: Mutex::default(),
            last: std::sync::Mutex::new(Ok(())),
            name: format!("{process} publisher"),
            declares: publishes,
        });
        Self { inner, handler: "publisher" }
    }

    /// The same connection, in the name of that handler.
    pub(crate) fn on_behalf_of(&self, handler: &'static str) -> Self {
        Self { handler, ..self.clone() }
    }

    /// Publishes events in their order, all in flight at once, and says of each what became of it. Where no queue gets
    /// one, the topology is declared again: somebody may have deleted what led there. The event goes out with its next
    /// try.
    pub async fn publish_events(&self, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
        let sending = traced::Sending::of(messages);
        let results = self.publish(&self.inner.topology.events_exchange(), sending.messages()).await;
        sending.ended(&results);
        if results.iter().any(|result| matches!(result, Err(PublishError::Unroutable(_)))) {
            self.declare_again().await;
        }
        results
    }

    /// Publishes a sign of life. Nobody may be listening.
    pub(crate) async fn publish_beacon(&self, beacon: Outgoing) {
        self.publish(&self.inner.topology.events_exchange(), &[beacon]).await;
    }

    async fn declare_again(&self) {
        let connection = self.inner.link.lock().await.connection.clone().filter(|_| self.inner.declares);
        let Some(connection) = connection else { return };
        let declared = tokio::time::timeout(PUBLISH_TIMEOUT, self.inner.topology.declare_all(&connection)).await;
        match declared {
            Ok(Ok(())) => tracing::warn!("an event had no route: exchanges, queues and bindings are declared again"),
            Ok(Err(error)) => tracing::warn!(%error, "an event had no route, and nothing can be declared"),
            Err(_) => tracing::warn!("an event had no route, and nothing is declared within {PUBLISH_TIMEOUT:?}"),
        }
    }

    /// Publishes one message to the parking queue.
    pub(crate) async fn park(&self, message: Outgoing) -> Result<(), PublishError> {
        let exchange = self.inner.topology.parking_exchange();
        let mut results = self.publish(&exchange, &[message]).await;
        results.pop().unwrap_or_else(|| Err(PublishError::Unconfirmed("nothing was published".to_owned())))
    }

    /// Publishes one message to a consuming handler's queue, and to no other.
    pub(crate) async fn send_to(&self, handler: &str, message: Outgoing) -> Result<(), PublishError> {
        let message = Outgoing { routing_key: self.inner.topology.queue(handler), ..message };
        let mut results = self.publish("", &[message]).await;
        results.pop().unwrap_or_else(|| Err(PublishError::Unconfirmed("nothing was published".to_owned())))
    }

    /// Checks that the broker can be reached now: connects where there is no connection. While another is
    /// connecting, what was found last.
    pub(crate) async fn check(&self) -> Result<()> {
        let Ok(mut link) = self.inner.link.try_lock() else {
            return self.last().as_ref().map_err(Error::again).copied();
        };
        let connected = self.connected(&mut link).await;
        *self.last() = connected.as_ref().map(|_| ()).map_err(Error::again);
        connected.map(drop)
    }

    fn last(&self) -> MutexGuard<'_, Result<(), Error>> {
        self.inner.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes all of them in their order. Where the broker closes the channel over one, those in doubt go out again
    /// in parts, until that one is alone: it is rejected, and the others are published.
    async fn publish(&self, exchange: &str, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
        let mut results: Vec<_> = messages.iter().map(|_| Ok(())).collect();
        let mut parts = VecDeque::from([(0..messages.len()).collect::<Vec<_>>()]);
        let mut largest_first = true;
        while let Some(part) = parts.pop_front() {
            let batch: Vec<_> = part.iter().map(|place| &messages[*place]).collect();
            let Published { results: published, closed } = self.publish_part(exchange, &batch).await;
            for (place, result) in part.iter().zip(published) {
                results[*place] = result;
            }
            let Some(why) = closed else { continue };
            let is_lost = |place: &usize| matches!(results[*place], Err(PublishError::Unconfirmed(_)));
            let lost: Vec<_> = part.into_iter().filter(is_lost).collect();
            if let [only] = lost[..] {
                results[only] = Err(PublishError::Rejected(why));
                continue;
            }
            // Mostly it is the largest.
            let size = |place: &usize| messages[*place].payload.len();
            let split = if std::mem::take(&mut largest_first) { around_largest(&lost, size) } else { halves(&lost) };
            split.into_iter().rev().filter(|part| !part.is_empty()).for_each(|part| parts.push_front(part.to_vec()));
        }
        results
    }

    async fn publish_part(&self, exchange: &str, messages: &[&Outgoing]) -> Published {
        let (mut generation, mut lent) = (None, None);
        let publish = async {
            let channel = self.lend(&mut generation).await.map_err(|error| error.to_string())?;
            Ok(publish_over(lent.insert(channel), exchange, messages).await)
        };
        let published = tokio::time::timeout(PUBLISH_TIMEOUT, publish).await;
        let published = published.unwrap_or_else(|_| Err(format!("not within {PUBLISH_TIMEOUT:?}")));
        let published = published.unwrap_or_else(|why| {
            let unconfirmed = PublishError::Unconfirmed(why);
            Published { results: messages.iter().map(|_| Err(unconfirmed.clone())).collect(), closed: None }
        });
        let doubt = published.results.iter().find_map(|result| match result {
            // A channel that was closed over a message says nothing against its connection.
            Err(PublishError::Unconfirmed(why)) if published.closed.is_none() => Some(why.clone()),
            _ => None,
        });
        if let Some(generation) = generation {
            // A connection that gives no channel in time is as doubtful as a batch that is not confirmed.
            self.take_back(generation, lent.filter(|_| doubt.is_none())).await;
        }
        *self.last() =
            doubt.map_or(Ok(()), |why| Err(unavailable("RabbitMQ confirms nothing").with_source(anyhow::anyhow!(why))));
        published
    }

    /// A channel that nobody else publishes over until it is given back: a returned message may come attached to any
    /// confirm of its channel. Says which connection it is of before that connection is asked for one.
    async fn lend(&self, generation: &mut Option<u64>) -> Result<Channel> {
        let mut link = self.inner.link.lock().await;
        let connection = self.connected(&mut link).await?;
        *generation = Some(link.generation);
        while let Some(channel) = link.idle.pop() {
            if channel.is_open() {
                return Ok(channel.on_behalf_of(self.handler));
            }
        }
        // Others may publish meanwhile.
        drop(link);
        let channel = async {
            let channel = Channel::open(&connection, self.handler).await?;
            channel.confirm_select().await?;
            lapin::Result::Ok(channel)
        };
        channel.await.map_err(|error| unavailable("RabbitMQ opens no channel").with_source(error))
    }

    /// Takes a channel back, or none of a connection in doubt.
    async fn take_back(&self, generation: u64, channel: Option<Channel>) {
        let mut link = self.inner.link.lock().await;
        if generation != link.generation {
            return;
        }
        if let Some(channel) = channel {
            if channel.is_open() {
                link.idle.push(channel);
            }
        } else if !link.connection.as_ref().is_some_and(|connection| connection.status().blocked()) {
            // What is in flight on a link in doubt would confuse the next batch: build a new one. But not while an
            // alarm blocks it: a new one would be blocked as well, and this one can't even say goodbye.
            link.forget();
        }
    }

    async fn connect(&self, link: &mut Link) -> Result<Arc<Connection>> {
        link.forget();
        let connection = Arc::new(self.inner.url.connect(&self.inner.name).await?);
        if self.inner.declares {
            self.inner.topology.declare_all(&connection).await?;
        }
        link.connection = Some(connection.clone());
        Ok(connection)
    }

    async fn connected(&self, link: &mut Link) -> Result<Arc<Connection>> {
        let stands = link.connection.as_ref().filter(|connection| connection.status().connected()).cloned();
        let connection = match stands {
            Some(connection) => connection,
            None => self.connect(link).await?,
        };
        if connection.status().blocked() {
            return Err(unavailable("RabbitMQ blocks publishers: a memory or disk alarm"));
        }
        Ok(connection)
    }
}

fn unavailable(why: &'static str) -> Error {
    Error::new(Class::Unavailable, why)
}

/// Those before the largest, itself, and those after it.
fn around_largest(places: &[usize], size: impl Fn(&usize) -> usize) -> [&[usize]; 3] {
    let largest = (0..places.len()).max_by_key(|at| size(&places[*at])).unwrap_or_default();
    let (before, rest) = places.split_at(largest);
    let (itself, after) = rest.split_at(rest.len().min(1));
    [before, itself, after]
}

fn halves(places: &[usize]) -> [&[usize]; 3] {
    let (left, right) = places.split_at(places.len() / 2);
    [left, right, &[]]
}

impl Link {
    fn forget(&mut self) {
        self.connection = None;
        self.idle.clear();
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_order_and_each_is_smaller_than_the_whole() {
        let places: Vec<usize> = (10..17).collect();
        let [before, largest, after] = around_largest(&places, |place| if *place == 14 { 9 } else { 1 });
        assert_eq!((before, largest, after), (&places[..4], &places[4..5], &places[5..]));
        assert_eq!(halves(&places).concat(), places);
        assert!(halves(&places[..2]).iter().all(|half| half.len() < 2));
    }
}
