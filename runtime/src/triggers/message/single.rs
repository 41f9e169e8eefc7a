//! One message by itself, until it is applied or parked.
use super::{apply::apply, channel::PAUSES, delivery::Received, handler::Consumer};
use crate::{
    Error, Member, Result, Runtime,
    base::{backoff, error::Disposition, failpoint, spec::Spec},
    context::invoke::invoke,
    rabbitmq::acknowledge,
};
use lapin::message::Delivery;
use tokio::sync::OwnedSemaphorePermit;

impl Consumer {
    /// One try at one message.
    pub(super) async fn consume(self, runtime: &Runtime, received: Received) -> Result<()> {
        let invocation = received.invocation(self.spec);
        let (inner, run) = (runtime.clone(), invocation.clone());
        invoke(runtime, self.spec, invocation, async move {
            let alone = [Member { input: received, invocation: run }];
            let mut verdicts = apply(&inner, self, &alone).await?;
            verdicts.pop().unwrap_or_else(|| Err(Error::internal(anyhow::anyhow!("no verdict was given"))))?;
            inner.metrics().applied(self.spec.name, alone[0].input.message_id.into_iter());
            Ok(())
        })
        .await
    }
}

/// Sees one delivery to its end: acknowledged, or (at a drain) left to be delivered again.
pub(super) async fn handle(runtime: Runtime, consumer: Consumer, delivery: Delivery, _slot: OwnedSemaphorePermit) {
    if !settle_alone(&runtime, consumer, &Received::of(&delivery)).await {
        return;
    }
    failpoint::hit(consumer.spec.name, "before_ack");
    if let Err(error) = acknowledge(consumer.spec.name, &delivery, false).await {
        tracing::info!(handler = consumer.spec.name, %error, "not acknowledged; it will be delivered again and found done");
    }
}

/// Tries one message by itself until it is applied or parked. False where a drain begins first.
pub(super) async fn settle_alone(runtime: &Runtime, consumer: Consumer, received: &Received) -> bool {
    let (mut tries, mut faults) = (0_u32, 0_u32);
    loop {
        let Err(error) = consumer.consume(runtime, received.clone()).await else {
            return true;
        };
        tries += 1;
        faults += u32::from(error.class().disposition() == Disposition::RetryThenGiveUp);
        let hopeless = error.class().disposition() == Disposition::GiveUp || faults > consumer.spec.limits.retries;
        if hopeless && park(runtime, consumer.spec, received, &error).await {
            return true;
        }
        if !runtime.tasks().pause(backoff::pause(tries, PAUSES.0, PAUSES.1)).await {
            return false;
        }
    }
}

async fn park(runtime: &Runtime, spec: &Spec, received: &Received, error: &Error) -> bool {
    match runtime.publisher().on_behalf_of(spec.name).park(received.parked(spec.name, error, runtime.contracts())).await
    {
        Ok(()) => {
            tracing::error!(handler = spec.name, message_id = ?received.message_id, %error, "the message is parked");
            true
        }
        Err(publish) => {
            tracing::warn!(handler = spec.name, %publish, "the message can't be parked yet");
            false
        }
    }
}
