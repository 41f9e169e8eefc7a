//! Messages from RabbitMQ.
//!
//! A message is acknowledged after its effect is committed, never before. A `Tx` handler's effect commits together with
//! a row in the inbox, so a second delivery changes nothing; an `Io` handler must make its effect idempotent by itself.
//! What the surroundings are to blame for is tried again in place, for as long as it takes; what the message is to blame
//! for goes to the parking queue with its error, and the queue moves on; [`parking`] is where it is looked after.

mod consumer;
mod delivery;

pub mod parking;

pub(crate) use consumer::{Erased, run};

use crate::{Io, Result, Tx, spec::Spec};
use delivery::Received;
use futures_util::future::BoxFuture;

/// Consumes messages with pure database effects.
pub trait TxHandler: Send + Sync + 'static {
    /// Name, routing keys and limits. The concurrency is how many messages are handled at the same time.
    const SPEC: &'static Spec;
    /// The message's protobuf type.
    type Message: prost::Message + Default + 'static;

    /// Applies it. Messages come in any order.
    fn handle(tx: &mut Tx, message: &Self::Message) -> impl Future<Output = Result<()>> + Send;
}

/// Consumes messages with effects outside the database, which it makes idempotent itself.
pub trait IoHandler: Send + Sync + 'static {
    /// Name, routing keys and limits. The concurrency is how many messages are handled at the same time.
    const SPEC: &'static Spec;
    /// The message's protobuf type.
    type Message: prost::Message + Default + 'static;

    /// Applies it. Messages come in any order, and some twice.
    fn handle(io: &Io, message: &Self::Message) -> impl Future<Output = Result<()>> + Send;
}

/// Effect and inbox row in one transaction.
pub(crate) fn by_tx<H: TxHandler>() -> Erased {
    fn call<'a, H: TxHandler>(tx: &'a mut Tx, received: &'a Received) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { H::handle(tx, &received.decode()?).await })
    }
    Erased::Tx(call::<H>)
}

/// An effect that is idempotent by itself.
pub(crate) fn by_io<H: IoHandler>() -> Erased {
    fn call<'a, H: IoHandler>(io: &'a Io, received: &'a Received) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { H::handle(io, &received.decode()?).await })
    }
    Erased::Io(call::<H>)
}
