//! Consuming many messages at a time: what has been delivered is one batch, applied in one transaction and acknowledged
//! together. Nothing waits for a batch to fill.
//!
//! A message that can't be applied with the others is handled by itself, with its tries and its parking, while its lane
//! goes on. When a whole batch fails it is halved, as often as it takes to find the one to blame.
//!
//! A message that comes again is handled alone: it may be the one that killed the consumer before. And the broker
//! counts a delivery against whatever a consumer that dies had been given ahead; so a consumer is given one message at
//! a time until one comes that nobody had before.
use super::{
    apply::apply,
    channel::{Ended, PAUSES, consume, leave},
    delivery::Received,
    handler::Consumer,
    single::settle_alone,
};
use crate::{
    Error, Invocation, Member, Result, Runtime,
    base::{
        backoff,
        batch::{self, Verdicts},
        failpoint,
        spec::Batch,
    },
    context::invoke::{self, Finished, Together},
    rabbitmq::{self, Channel, Consuming},
    telemetry::traces,
};
use futures_util::future::try_join_all;
use lapin::{Connection, message::Delivery};
use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Batches delivered ahead: the next one arrives while one is applied.
const PREFETCHED_BATCHES: usize = 2;

/// A batch that the surroundings seem to be to blame for is tried so often, then halved: it may be one message after
/// all.
const PATIENT_TRIES: u32 = 3;

/// Messages of a lane that are handled by themselves at the same time: one more, and the lane waits.
const QUARANTINED: usize = 16;

/// One channel, whose batches are applied one after another.
pub(super) struct ConsumerLane {
    channel: Channel,
    connection: Arc<Connection>,
    deliveries: Consuming,
    tag: String,
    /// True if every message so far had been delivered before.
    one_at_a_time: bool,
    /// How many consumers this channel has had.
    consumers: u32,
    /// Delivered, and not to go with the batch before it.
    next: VecDeque<Delivery>,
    quarantine: QuarantinedMessages,
}

/// Messages that are settled by themselves.
struct QuarantinedMessages {
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Messages of this channel that were passed over and are not acknowledged. While there are any, nothing may be
    /// acknowledged together with all before it.
    passed_over: Arc<AtomicUsize>,
}

/// The fate of a message in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Applied,
    /// To be settled by itself.
    Failed,
    /// A drain began first.
    Left,
}

/// Works all lanes, each over channels of its own, until the drain. Fails when one of them does.
pub(super) async fn work(
    runtime: &Runtime,
    consumer: Consumer,
    limits: Batch,
    connection: &Arc<Connection>,
) -> anyhow::Result<()> {
    let lanes = (0..limits.lanes).map(|_| async {
        while ConsumerLane::open(runtime, consumer, connection).await?.work(runtime, consumer, limits).await?
            == Ended::Idle
        {}
        anyhow::Ok(())
    });
    try_join_all(lanes).await.map(drop)
}

impl ConsumerLane {
    async fn open(runtime: &Runtime, consumer: Consumer, connection: &Arc<Connection>) -> anyhow::Result<Self> {
        let channel = Channel::open(connection, consumer.spec.name).await?;
        let tag = format!("{}.one_at_a_time", consumer.spec.name);
        let deliveries = consume(runtime, connection, consumer.spec.name, &channel, (&tag, 1)).await?;
        let slots = Arc::new(Semaphore::new(QUARANTINED));
        let quarantine = QuarantinedMessages { slots, tasks: TaskTracker::new(), passed_over: Arc::default() };
        let connection = connection.clone();
        Ok(Self {
            channel,
            connection,
            deliveries,
            tag,
            one_at_a_time: true,
            consumers: 0,
            next: VecDeque::new(),
            quarantine,
        })
    }

    async fn work(mut self, runtime: &Runtime, consumer: Consumer, limits: Batch) -> anyhow::Result<Ended> {
        let ended = loop {
            let first = match self.first(runtime).await? {
                Ok(first) => first,
                Err(ended) => break ended,
            };
            if self.one_at_a_time && !first.redelivered {
                self.trust(runtime, consumer, limits).await?;
            }
            let batch = self.gather(first, limits)?;
            let all_applied = self.settle(runtime, consumer, batch).await;
            if self.one_at_a_time && !all_applied {
                // It killed nobody; but the broker gives this consumer no other until it is acknowledged.
                self.consume_anew(runtime, consumer, 1).await?;
            }
        };
        leave(&self.channel, &self.tag, &self.quarantine.tasks).await;
        Ok(ended)
    }

    async fn cancel(&self) -> lapin::Result<()> {
        self.channel.cancel(&self.tag).await
    }

    /// From now on batches are delivered ahead.
    async fn trust(&mut self, runtime: &Runtime, consumer: Consumer, limits: Batch) -> anyhow::Result<()> {
        self.one_at_a_time = false;
        self.consume_anew(runtime, consumer, limits.size * PREFETCHED_BATCHES).await
    }

    /// A channel's limit counts, and holds, for those who begin to consume after it was set.
    async fn consume_anew(&mut self, runtime: &Runtime, consumer: Consumer, ahead: usize) -> anyhow::Result<()> {
        self.cancel().await?;
        self.consumers += 1;
        self.tag = format!("{}.{}", consumer.spec.name, self.consumers);
        let limit = (self.tag.as_str(), ahead);
        let deliveries = consume(runtime, &self.connection, consumer.spec.name, &self.channel, limit).await?;
        let mut before = std::mem::replace(&mut self.deliveries, deliveries);
        // One that came before the cancellation did.
        while let Ok(Some(delivery)) = before.now() {
            self.next.push_back(delivery);
        }
        Ok(())
    }

    /// The next message, or why there is none over this channel.
    async fn first(&mut self, runtime: &Runtime) -> anyhow::Result<Result<Delivery, Ended>> {
        if runtime.tasks().draining().is_cancelled() {
            return Ok(Err(Ended::Drain));
        }
        if let Some(next) = self.next.pop_front() {
            return Ok(Ok(next));
        }
        let has_room = !self.one_at_a_time || self.quarantine.passed_over.load(Ordering::Relaxed) == 0;
        loop {
            let delivery = tokio::select! {
                biased;
                () = runtime.tasks().draining().cancelled() => return Ok(Err(Ended::Drain)),
                delivery = self.deliveries.next(has_room) => delivery?,
            };
            match delivery {
                Some(delivery) => return Ok(Ok(delivery)),
                // Not while messages of this channel are being seen through.
                None if self.quarantine.tasks.is_empty() => return Ok(Err(Ended::Idle)),
                None => {}
            }
        }
    }

    /// The first and what else has been delivered already, within the limits.
    fn gather(&mut self, first: Delivery, limits: Batch) -> anyhow::Result<Vec<Delivery>> {
        if first.redelivered {
            return Ok(vec![first]);
        }
        let mut bytes = first.data.len();
        let mut batch = vec![first];
        while batch.len() < limits.size {
            let delivery = match self.next.pop_front() {
                Some(next) => next,
                None => match self.deliveries.now()? {
                    Some(delivery) => delivery,
                    None => break,
                },
            };
            bytes += delivery.data.len();
            if delivery.redelivered || bytes > limits.bytes {
                self.next.push_front(delivery);
                break;
            }
            batch.push(delivery);
        }
        Ok(batch)
    }

    /// Applies the batch and acknowledges what was applied; what failed goes to the quarantine. Whether all of it was
    /// applied.
    async fn settle(&self, runtime: &Runtime, consumer: Consumer, batch: Vec<Delivery>) -> bool {
        let received: Vec<_> = batch.iter().map(Received::of).collect();
        let fates = settle_each(runtime, consumer, &received).await;
        failpoint::hit(consumer.spec.name, "before_ack");
        let applied: Vec<_> = batch
            .iter()
            .zip(&fates)
            .filter(|(_, fate)| **fate == Fate::Applied)
            .map(|(delivery, _)| delivery)
            .collect();
        let passed_over = batch.len() - applied.len();
        let before = self.quarantine.passed_over.fetch_add(passed_over, Ordering::Relaxed);
        let together = passed_over == 0 && before == 0;
        for delivery in if together { &applied[applied.len() - 1..] } else { &applied } {
            acknowledge(consumer, delivery, together).await;
        }
        for ((delivery, received), fate) in batch.into_iter().zip(received).zip(fates) {
            if fate == Fate::Failed {
                self.quarantine(runtime, consumer, delivery, received).await;
            }
        }
        passed_over == 0
    }

    async fn quarantine(&self, runtime: &Runtime, consumer: Consumer, delivery: Delivery, received: Received) {
        let slot = tokio::select! {
            biased;
            () = runtime.tasks().draining().cancelled() => return,
            slot = self.quarantine.slots.clone().acquire_owned() => slot,
        };
        let (inner, passed_over) = (runtime.clone(), self.quarantine.passed_over.clone());
        let settled = async move {
            if settle_alone(&inner, consumer, &received).await && acknowledge(consumer, &delivery, false).await {
                passed_over.fetch_sub(1, Ordering::Relaxed);
            }
            drop(slot);
        };
        runtime.tasks().spawn(self.quarantine.tasks.track_future(settled));
    }
}

/// Returns whether the broker was told.
async fn acknowledge(consumer: Consumer, delivery: &Delivery, multiple: bool) -> bool {
    let told = rabbitmq::acknowledge(consumer.spec.name, delivery, multiple).await;
    if let Err(error) = &told {
        tracing::info!(handler = consumer.spec.name, %error, "not acknowledged; delivered again, it will be found done");
    }
    told.is_ok()
}

/// Applies them, in as many transactions as it takes.
async fn settle_each(runtime: &Runtime, consumer: Consumer, received: &[Received]) -> Vec<Fate> {
    let mut fates = vec![Fate::Left; received.len()];
    let mut tries = 0;
    let mut groups = VecDeque::from(once_each(received));
    while let Some(group) = groups.pop_front() {
        let members = group.iter().map(|place| {
            let received = received[*place].clone();
            Member { invocation: received.invocation(consumer.spec), input: received }
        });
        match together(runtime, consumer, members.collect()).await {
            Ok(verdicts) => {
                for (place, verdict) in group.into_iter().zip(verdicts) {
                    fates[place] = if verdict.is_ok() { Fate::Applied } else { Fate::Failed };
                }
            }
            Err(error) if error.is_nobodys_fault() && tries < PATIENT_TRIES => {
                tries += 1;
                groups.push_front(group);
                if !runtime.tasks().pause(backoff::pause(tries, PAUSES.0, PAUSES.1)).await {
                    break;
                }
            }
            Err(_) if group.len() == 1 => fates[group[0]] = Fate::Failed,
            Err(_) => {
                let (left, right) = group.split_at(group.len() / 2);
                groups.push_front(right.to_vec());
                groups.push_front(left.to_vec());
            }
        }
    }
    fates
}

/// Places of messages, apart where one is there twice: the second time comes after the first.
fn once_each(received: &[Received]) -> Vec<Vec<usize>> {
    let (mut seen, mut first, mut repeated) = (HashSet::new(), Vec::new(), Vec::new());
    for (place, received) in received.iter().enumerate() {
        match received.message_id {
            Some(id) if !seen.insert(id) => repeated.push(vec![place]),
            _ => first.push(place),
        }
    }
    repeated.insert(0, first);
    repeated
}

/// One run for all of them, in a task of its own.
async fn together(runtime: &Runtime, consumer: Consumer, members: Vec<Member<Received>>) -> Result<Verdicts<()>> {
    let inner = runtime.clone();
    let run = async move {
        let invocation = match &members[..] {
            [only] => only.invocation.clone(),
            _ => Invocation::start(consumer.spec.name, consumer.spec.limits.timeout),
        };
        let ids = batch::correlation_ids(members.iter().map(|member| &member.invocation));
        let invocations = || members.iter().map(|member| &member.invocation);
        let (size, links) = (members.len(), traces::links(invocations()));
        let together = Together { spec: consumer.spec, invocation: &invocation, size, ids: &ids, links };
        let work = async {
            let Finished { result, .. } = invoke::quietly(&invocation, apply(&inner, consumer, &members)).await;
            let verdicts = result?;
            invoke::conclude(consumer.spec, invocations(), &verdicts);
            traces::all_ended(consumer.spec, invocations(), &verdicts);
            Ok(verdicts)
        };
        let began = std::time::Instant::now();
        let size = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let result = Box::pin(together.run(&inner, work)).await;
        if let Ok(verdicts) = &result {
            inner.metrics().batch(consumer.spec.name, "message", size, began.elapsed());
            let applied = members.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_ok());
            inner.metrics().applied(consumer.spec.name, applied.filter_map(|(member, _)| member.input.message_id));
        }
        result
    };
    runtime.tasks().spawn(run).await.unwrap_or_else(|join| Err(Error::internal(join)))
}
