//! Messages from RabbitMQ.
//!
//! A message is acknowledged after its effect is committed, never before. A `Tx` handler's effect commits together with
//! a row in the inbox, so a second delivery changes nothing; an `Io` handler must make its effect idempotent by itself.
//! What the surroundings are to blame for is tried again in place, for as long as it takes; what the message is to
//! blame for goes to the parking queue with its error, and the queue moves on; [`parking`] is where it is looked after.

mod apply;
mod batched;
mod channel;
mod consumer;
mod delivery;
mod handler;
mod returning;
mod single;

pub mod parking;

pub(crate) use consumer::run;
pub(crate) use handler::ErasedConsumer;
pub(crate) use returning::run as return_unknown;

use crate::{
    Invocation, Io, Member, Result, Runtime, Tx,
    base::{
        batch::{self, Verdicts},
        spec::Spec,
    },
};
use delivery::Received;
use handler::{Consumer, Deciding};
use prost::{Message as _, Name};
use uuid::Uuid;

/// Consumes messages with pure database effects.
pub trait TxHandler: Send + Sync + 'static {
    /// Name, routing keys and limits. The concurrency is how many messages are handled at the same time.
    const SPEC: &'static Spec;
    /// The message's protobuf type.
    type Message: Name + Default + 'static;

    /// Applies it. Messages come in any order.
    fn handle(tx: &mut Tx, message: &Self::Message) -> impl Future<Output = Result<()>> + Send;
}

/// Consumes messages with effects outside the database, which it makes idempotent itself.
pub trait IoHandler: Send + Sync + 'static {
    /// Name, routing keys and limits. The concurrency is how many messages are handled at the same time.
    const SPEC: &'static Spec;
    /// The message's protobuf type.
    type Message: Name + Default + 'static;

    /// Applies it. Messages come in any order, and some twice.
    fn handle(io: &Io, message: &Self::Message) -> impl Future<Output = Result<()>> + Send;
}

/// Consumes many messages at a time, with pure database effects: all of a batch in one transaction.
pub trait TxBatchHandler: Send + Sync + 'static {
    /// Name, routing keys, limits and [batch](Spec::batched). The lanes are how many batches are handled at the same
    /// time.
    const SPEC: &'static Spec;
    /// The messages' protobuf type.
    type Message: Name + Default + 'static;

    /// Applies them: one verdict each, in their order. One that failed must have had no effect; it is handled by itself
    /// then. Messages come in any order.
    fn handle(tx: &mut Tx, batch: &[Member<Self::Message>]) -> impl Future<Output = Result<Verdicts<()>>> + Send;
}

/// Consumes many messages at a time, with effects outside the database, which it makes idempotent itself.
pub trait IoBatchHandler: Send + Sync + 'static {
    /// Name, routing keys, limits and [batch](Spec::batched). The lanes are how many batches are handled at the same
    /// time.
    const SPEC: &'static Spec;
    /// The messages' protobuf type.
    type Message: Name + Default + 'static;

    /// Applies them: one verdict each, in their order. Messages come in any order, and some twice.
    fn handle(io: &Io, batch: &[Member<Self::Message>]) -> impl Future<Output = Result<Verdicts<()>>> + Send;
}

/// Effect and inbox row in one transaction, of one message at a time: one that fails leaves nothing.
pub(crate) fn by_tx<H: TxHandler>() -> ErasedConsumer {
    fn call<'a, H: TxHandler>(tx: &'a mut Tx, received: &'a [Member<Received>]) -> Deciding<'a> {
        Box::pin(async move {
            for Member { input, .. } in received {
                H::handle(tx, &input.decode()?).await?;
            }
            Ok(received.iter().map(|_| Ok(())).collect())
        })
    }
    ErasedConsumer::Tx(call::<H>)
}

/// An effect that is idempotent by itself, of one message at a time.
pub(crate) fn by_io<H: IoHandler>() -> ErasedConsumer {
    fn call<'a, H: IoHandler>(io: &'a Io, received: &'a [Member<Received>]) -> Deciding<'a> {
        Box::pin(async move {
            for Member { input, .. } in received {
                H::handle(io, &input.decode()?).await?;
            }
            Ok(received.iter().map(|_| Ok(())).collect())
        })
    }
    ErasedConsumer::Io(call::<H>)
}

/// Effects and inbox rows of many in one transaction.
pub(crate) fn by_tx_batch<H: TxBatchHandler>() -> ErasedConsumer {
    fn call<'a, H: TxBatchHandler>(tx: &'a mut Tx, received: &'a [Member<Received>]) -> Deciding<'a> {
        Box::pin(async move {
            let decoded = Decoded::<H::Message>::of(received);
            let verdicts =
                if decoded.members.is_empty() { Vec::new() } else { H::handle(tx, &decoded.members).await? };
            decoded.merge(verdicts)
        })
    }
    ErasedConsumer::Tx(call::<H>)
}

/// Effects of many that are idempotent by themselves.
pub(crate) fn by_io_batch<H: IoBatchHandler>() -> ErasedConsumer {
    fn call<'a, H: IoBatchHandler>(io: &'a Io, received: &'a [Member<Received>]) -> Deciding<'a> {
        Box::pin(async move {
            let decoded = Decoded::<H::Message>::of(received);
            let verdicts =
                if decoded.members.is_empty() { Vec::new() } else { H::handle(io, &decoded.members).await? };
            decoded.merge(verdicts)
        })
    }
    ErasedConsumer::Io(call::<H>)
}

/// One batch, as if these had been delivered.
pub(crate) async fn apply_by_hand<H: TxBatchHandler>(
    runtime: &Runtime,
    messages: &[(Uuid, H::Message)],
) -> Result<Verdicts<()>> {
    let members = messages.iter().map(|(id, message)| Member {
        input: Received::by_hand(*id, H::Message::full_name(), message.encode_to_vec()),
        invocation: Invocation::start(H::SPEC.name, H::SPEC.limits.timeout),
    });
    let consumer = Consumer { spec: H::SPEC, handler: by_tx_batch::<H>() };
    apply::apply(runtime, consumer, &members.collect::<Vec<_>>()).await
}

/// The messages of a batch that can be read, and the verdicts on those that can't, by their places.
struct Decoded<M> {
    members: Vec<Member<M>>,
    verdicts: Vec<Option<Result<()>>>,
}

impl<M: Name + Default> Decoded<M> {
    fn of(received: &[Member<Received>]) -> Self {
        let mut decoded = Self { members: Vec::new(), verdicts: Vec::new() };
        for Member { input, invocation } in received {
            let verdict = match input.decode() {
                Ok(input) => {
                    decoded.members.push(Member { input, invocation: invocation.clone() });
                    None
                }
                Err(error) => Some(Err(error)),
            };
            decoded.verdicts.push(verdict);
        }
        decoded
    }

    fn merge(self, verdicts: Verdicts<()>) -> Result<Verdicts<()>> {
        let mut verdicts = batch::counted(verdicts, self.members.len())?.into_iter();
        Ok(self.verdicts.into_iter().map(|own| own.or_else(|| verdicts.next()).unwrap_or(Ok(()))).collect())
    }
}
