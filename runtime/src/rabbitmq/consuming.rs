//! A consumer that notices when the broker has lost it, or what leads to its queue.
//!
//! A queue that is deleted and declared again at once, or a broker that comes back with another memory, may leave a
//! consumer that nothing is ever delivered to, over a connection that is well. So whoever has waited for a while
//! declares its queue and bindings again, which changes nothing where they are there, and asks: is there a consumer of
//! the queue, and is something waiting in it that should have come?
//!
//! The answers may be wrong. To a quorum queue that took the place of another of the same name, RabbitMQ counts the
//! consumer of the one before, gives it messages, and drops them on the way, since their numbers have come by already.
//! So whoever has waited for long consumes anew over another channel, and closes the old one: what it was given goes
//! back to the queue.
use super::{Channel, Topology};
use crate::base::backoff;
use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use lapin::{Connection, Consumer, message::Delivery, options::QueueDeclareOptions, types::FieldTable};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Nothing is asked before so much time without a delivery.
const ASK_AFTER: Duration = Duration::from_secs(5);
/// Whoever has waited for so long consumes over another channel.
const RENEW_AFTER: Duration = Duration::from_secs(20);
/// A broker that does not answer within this time has lost us as well.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a queue whose leader is too busy to say, RabbitMQ says that nothing waits and nobody consumes, as of one where
/// that is so (`rabbit_quorum_queue:stat`): it is believed once it has said so that often.
const LOOKS: u32 = 3;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Deliveries from one queue.
pub(crate) struct Consuming {
    deliveries: Consumer,
    connection: Arc<Connection>,
    topology: Topology,
    queue: String,
    /// When it is asked next.
    ask_at: Instant,
    /// When it is consumed over another channel.
    renew_at: Instant,
    /// True if something was waiting when it was last asked, and has not come since.
    overdue: bool,
}

impl Consuming {
    pub(crate) fn new(deliveries: Consumer, connection: Arc<Connection>, topology: Topology, queue: String) -> Self {
        let now = Instant::now();
        let (ask_at, renew_at) = (now + ASK_AFTER, now + backoff::jitter(RENEW_AFTER));
        Self { deliveries, connection, topology, queue, ask_at, renew_at, overdue: false }
    }

    /// The next delivery; none where it is time to consume over another channel. `has_room` says whether the broker may
    /// deliver one: not while as many as may be are unacknowledged.
    ///
    /// # Errors
    /// When the broker has ended the consumer or lost it, or does not answer.
    pub(crate) async fn next(&mut self, has_room: bool) -> anyhow::Result<Option<Delivery>> {
        loop {
            tokio::select! {
                biased;
                delivery = self.deliveries.next() => return self.came(delivery).map(Some),
                () = tokio::time::sleep_until(self.renew_at), if has_room => {
                    self.renew_at = Instant::now() + backoff::jitter(RENEW_AFTER);
                    return Ok(None);
                }
                () = tokio::time::sleep_until(self.ask_at) => self.ask(has_room).await?,
            }
        }
    }

    /// A delivery that is here already.
    pub(crate) fn now(&mut self) -> anyhow::Result<Option<Delivery>> {
        use futures_util::FutureExt;
        match self.deliveries.next().now_or_never() {
            Some(delivery) => self.came(delivery).map(Some),
            None => Ok(None),
        }
    }

    fn came(&mut self, delivery: Option<lapin::Result<Delivery>>) -> anyhow::Result<Delivery> {
        let Some(delivery) = delivery else { bail!("RabbitMQ cancelled the consumer") };
        let now = Instant::now();
        (self.ask_at, self.renew_at, self.overdue) = (now + ASK_AFTER, now + backoff::jitter(RENEW_AFTER), false);
        delivery.context("the delivery failed")
    }

    async fn ask(&mut self, has_room: bool) -> anyhow::Result<()> {
        self.ask_at = Instant::now() + ASK_AFTER;
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.declare_and_look()).await;
        let (messages, consumers) = asked.context("RabbitMQ does not answer")??;
        ensure!(consumers > 0, "RabbitMQ knows of no consumer of {}", self.queue);
        // Twice, since one may just be on its way.
        let is_overdue = messages > 0 && has_room;
        ensure!(!(is_overdue && self.overdue), "{messages} messages wait in {} and none comes", self.queue);
        self.overdue = is_overdue;
        Ok(())
    }

    async fn declare_and_look(&self) -> anyhow::Result<(u32, u32)> {
        let channel = Channel::open(&self.connection, "declare").await?;
        self.topology.declare_own_queue(&channel, &self.queue).await?;
        channel.close("declared").await.ok();
        look(&self.connection, &self.queue).await
    }
}

/// Messages that wait in a queue, and its consumers.
///
/// # Errors
/// When there is no such queue.
pub(crate) async fn look(connection: &Connection, queue: &str) -> anyhow::Result<(u32, u32)> {
    let mut looks = 1;
    loop {
        let found = look_once(connection, queue).await?;
        if found != (0, 0) || looks == LOOKS {
            return Ok(found);
        }
        looks += 1;
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

async fn look_once(connection: &Connection, queue: &str) -> anyhow::Result<(u32, u32)> {
    // A channel of its own: asking after a queue that is gone closes it.
    let channel = Channel::open(connection, "look").await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.declare_queue(queue, passive, FieldTable::default()).await;
    let found = found.with_context(|| format!("there is no queue {queue}"))?;
    channel.close("looked").await.ok();
    Ok((found.message_count(), found.consumer_count()))
}
