//! The process's own queue on the broker, from which its feeds hear.
use super::{Live, audience};
use crate::{Runtime, backoff, tasks::Tasks};
use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// Between two connections.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// Messages delivered ahead.
const PREFETCH: u16 = 1_000;
/// So many are acknowledged together,
const ACK_EVERY: u16 = 250;
/// and those that came last after this long: the broker closes channels that keep it waiting for half an hour.
const ACK_WITHIN: Duration = Duration::from_secs(5);

impl Live {
    fn up(&self) {
        self.link.send_modify(|link| (link.epoch, link.up) = (link.epoch + 1, true));
    }

    fn lost(&self) {
        self.link.send_if_modified(|link| std::mem::replace(&mut link.up, false));
    }

    /// A feed that panics may have lost the event: then all is loaded again.
    fn hear(&self, payload: &[u8], tasks: &Tasks) -> anyhow::Result<()> {
        let heard = catch_unwind(AssertUnwindSafe(|| self.hubs.iter().for_each(|hub| hub.hear(payload, tasks))));
        heard.map_err(|_| anyhow!("a feed panicked over an event"))
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
        runtime.live().lost();
        if let Err(error) = ended {
            failures += 1;
            let error = format!("{error:#}");
            tracing::warn!(error, "no events for those who watch; their streams are stale until the broker is back");
            runtime.tasks().pause(backoff::pause(failures, PAUSES.0, PAUSES.1)).await;
        }
    }
}

/// One connection's life. Ok when it ended because of the drain.
async fn session(runtime: &Runtime, failures: &mut u32) -> anyhow::Result<()> {
    let (live, topology) = (runtime.live(), runtime.topology());
    let connection = runtime.broker().connect("watchers").await?;
    let channel = connection.create_channel().await?;
    topology.declare(&channel).await.context("the topology can't be declared")?;
    let queue = topology.declare_own(&channel, &live.keys()).await.context("no queue of our own")?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let mut deliveries = channel.basic_consume(queue, "watchers".into(), options, FieldTable::default()).await?;
    // What is committed from here on comes; what was before is in the database.
    live.up();
    *failures = 0;
    let (mut newest, mut pending) = (0, 0);
    loop {
        let delivery = tokio::select! {
            biased;
            () = runtime.tasks().closing().cancelled() => return Ok(()),
            delivery = deliveries.next() => delivery,
            () = tokio::time::sleep(ACK_WITHIN), if pending > 0 => {
                acknowledge(&channel, newest, &mut pending).await?;
                continue;
            }
        };
        let Some(delivery) = delivery else { bail!("RabbitMQ cancelled the consumer") };
        let delivery = delivery.context("the delivery failed")?;
        live.hear(&delivery.data, runtime.tasks())?;
        newest = delivery.delivery_tag;
        pending += 1;
        if pending >= ACK_EVERY {
            acknowledge(&channel, newest, &mut pending).await?;
        }
    }
}

async fn acknowledge(channel: &Channel, newest: u64, pending: &mut u16) -> lapin::Result<()> {
    *pending = 0;
    channel.basic_ack(newest, BasicAckOptions { multiple: true }).await
}
