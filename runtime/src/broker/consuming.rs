//! A consumer that notices when the broker has lost it.
//!
//! A queue that is deleted and declared again at once, or a broker that comes back with another memory, may leave a consumer
//! that nothing is ever delivered to, over a connection that is well. So whoever has waited for a while asks: is there a
//! consumer of the queue, and is something waiting in it that should have come?
use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use lapin::{Channel, Connection, Consumer, message::Delivery, options::QueueDeclareOptions, types::FieldTable};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Nothing is asked before so much time without a delivery.
const ASK_AFTER: Duration = Duration::from_secs(5);
/// A broker that does not answer within this time has lost us as well.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Deliveries from one queue.
pub(crate) struct Consuming {
    deliveries: Consumer,
    connection: Arc<Connection>,
    queue: String,
    /// When it is asked next.
    ask_at: Instant,
    /// Whether something was waiting when it was last asked, and has not come since.
    overdue: bool,
}

impl Consuming {
    pub(crate) fn new(deliveries: Consumer, connection: Arc<Connection>, queue: String) -> Self {
        Self { deliveries, connection, queue, ask_at: Instant::now() + ASK_AFTER, overdue: false }
    }

    /// The next delivery. `has_room` says whether the broker may deliver one: not while as many as may be are unacknowledged.
    ///
    /// # Errors
    /// When the broker has ended the consumer or lost it, or does not answer.
    pub(crate) async fn next(&mut self, has_room: bool) -> anyhow::Result<Delivery> {
        loop {
            tokio::select! {
                biased;
                delivery = self.deliveries.next() => return self.came(delivery),
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
        (self.ask_at, self.overdue) = (Instant::now() + ASK_AFTER, false);
        delivery.context("the delivery failed")
    }

    async fn ask(&mut self, has_room: bool) -> anyhow::Result<()> {
        self.ask_at = Instant::now() + ASK_AFTER;
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, look(&self.connection, &self.queue)).await;
        let (messages, consumers) = asked.context("RabbitMQ does not answer")??;
        ensure!(consumers > 0, "RabbitMQ knows of no consumer of {}", self.queue);
        // Twice, since one may just be on its way.
        let is_overdue = messages > 0 && has_room;
        ensure!(!(is_overdue && self.overdue), "{messages} messages wait in {} and none comes", self.queue);
        self.overdue = is_overdue;
        Ok(())
    }
}

/// Messages that wait in a queue, and its consumers.
///
/// # Errors
/// When there is no such queue.
pub(crate) async fn look(connection: &Connection, queue: &str) -> anyhow::Result<(u32, u32)> {
    // A channel of its own: asking after a queue that is gone closes it.
    let channel: Channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
    let found = found.with_context(|| format!("there is no queue {queue}"))?;
    channel.close(200, "looked".into()).await.ok();
    Ok((found.message_count(), found.consumer_count()))
}
