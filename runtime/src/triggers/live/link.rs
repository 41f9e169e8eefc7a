//! The process's own queue on the broker, from which its feeds hear.
use super::{audience, beacon};
use crate::context::{Link, Live};
use crate::{
    Runtime,
    base::{backoff, tasks::Tasks},
    rabbitmq::{Channel, then_close},
};
use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use lapin::{Connection, message::Delivery};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};
use tokio::time::Instant;

/// What the broker calls it.
const NAME: &str = "watchers";
/// Between two connections.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// Messages delivered ahead.
const PREFETCH: u16 = 1_000;
/// So many are acknowledged together,
const ACK_EVERY: u16 = 250;
/// and those that came last after this long: the broker closes channels that keep it waiting for half an hour.
const ACK_WITHIN: Duration = Duration::from_secs(5);

impl Live {
    /// A queue was bound: what is published from here on comes, or nobody knows. A beacon tells.
    fn bound(&self, tasks: &Tasks) {
        self.change(tasks, |link| link.epoch += 1);
    }

    fn up(&self, tasks: &Tasks) {
        self.change(tasks, |link| link.up = true);
    }

    fn lost(&self, tasks: &Tasks) {
        self.change(tasks, |link| link.up = false);
    }

    /// Everybody who watches something is told.
    fn change(&self, tasks: &Tasks, change: impl FnOnce(&mut Link)) {
        let is_changed = self.link.send_if_modified(|link| {
            let before = *link;
            change(link);
            *link != before
        });
        if is_changed {
            self.hubs.iter().for_each(|hub| hub.link_changed(tasks));
        }
    }

    /// A feed that panics may have lost the event: then all is loaded again.
    fn hear(&self, delivery: &Delivery, tasks: &Tasks) -> anyhow::Result<()> {
        let kind = delivery.properties.kind().as_ref().map_or("", |kind| kind.as_str());
        let each = || self.hubs.iter().for_each(|hub| hub.hear(kind, &delivery.data, tasks));
        catch_unwind(AssertUnwindSafe(each)).map_err(|_| anyhow!("a feed panicked over an event"))
    }
}

/// Listens until the drain, and counts who watches.
pub(crate) async fn run(runtime: Runtime) {
    if runtime.live().hubs.is_empty() {
        return;
    }
    runtime.tasks().spawn(audience::run(runtime.clone()));
    let mut failures = 0;
    while !runtime.tasks().closing().is_cancelled() {
        let ended = session(&runtime, &mut failures).await;
        runtime.live().lost(runtime.tasks());
        if let Err(error) = ended {
            failures += 1;
            let error = format!("{error:#}");
            // Without a worker that goes on and on.
            if failures == 1 {
                tracing::warn!(error, "no events for those who watch; their streams are stale until they come again");
            } else {
                tracing::debug!(error, failures, "still no events for those who watch");
            }
            runtime.tasks().pause(backoff::pause(failures, PAUSES.0, PAUSES.1)).await;
        }
    }
}

/// One connection's life. Ok when it ended because of the drain.
async fn session(runtime: &Runtime, failures: &mut u32) -> anyhow::Result<()> {
    let connection = runtime.broker().connect(NAME).await?;
    then_close(&connection, over_connection(runtime, failures, &connection)).await
}

async fn over_connection(runtime: &Runtime, failures: &mut u32, connection: &Connection) -> anyhow::Result<()> {
    let (live, topology) = (runtime.live(), runtime.topology());
    let channel = Channel::open(connection, NAME).await?;
    let mut keys = live.keys();
    keys.push(beacon::KEY);
    let queue = topology.declare_listener(&channel, &keys).await?;
    channel.prefetch(PREFETCH).await?;
    let mut deliveries = channel.consume(&queue, NAME, true).await?;
    // What is committed from here on comes; what was before is in the database.
    live.bound(runtime.tasks());
    let (mut newest, mut pending, mut heard_at) = (0, 0, Instant::now());
    loop {
        let delivery = tokio::select! {
            biased;
            () = runtime.tasks().closing().cancelled() => return Ok(()),
            delivery = deliveries.next() => delivery,
            () = tokio::time::sleep_until(heard_at + beacon::SILENCE) => {
                bail!("no worker has been heard for {:?}", beacon::SILENCE);
            }
            () = tokio::time::sleep(ACK_WITHIN), if pending > 0 => {
                acknowledge(&channel, newest, &mut pending).await?;
                continue;
            }
        };
        let Some(delivery) = delivery else { bail!("RabbitMQ cancelled the consumer") };
        let delivery = delivery.context("the delivery failed")?;
        if delivery.routing_key.as_str() == beacon::KEY {
            heard_at = Instant::now();
            *failures = 0;
            live.up(runtime.tasks());
        } else {
            live.hear(&delivery, runtime.tasks())?;
        }
        newest = delivery.delivery_tag;
        pending += 1;
        if pending >= ACK_EVERY {
            acknowledge(&channel, newest, &mut pending).await?;
        }
    }
}

async fn acknowledge(channel: &Channel, newest: u64, pending: &mut u16) -> lapin::Result<()> {
    *pending = 0;
    channel.acknowledge_up_to(newest).await
}
