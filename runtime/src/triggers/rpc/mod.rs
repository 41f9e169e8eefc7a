//! gRPC calls.
//!
//! A call that changes something carries an idempotency key, a UUID chosen by the client. Its effect, its events and
//! the stored reply commit together; the same key again gets the same reply, byte for byte; with another request it is
//! a [`Conflict`](crate::Class::Conflict). A refusal is stored too: it was an answer.

mod batched;
mod combine;
mod group;
mod incoming;
mod reply;
mod serve;
mod stream;

pub(crate) use incoming::{Incoming, Read, read};
pub(crate) use serve::Entry;
pub(crate) use stream::Answer;
pub use stream::{Encoded, Sink};

use crate::{
    Io, Member, Result, Tx,
    base::{Access, Caller, batch::Verdicts, spec::Spec},
};
use prost::{Message, Name};
use serde::Serialize;
use std::hash::Hash;

/// A call that changes something: pure database effects in one transaction.
pub trait TxHandler: Send + Sync + 'static {
    /// Name, method and limits.
    const SPEC: &'static Spec;
    /// Who may call. Always somebody with a token: receipts are kept per caller.
    const ACCESS: Access;
    /// The message on the wire.
    type Request: Message + Name + Default + 'static;
    /// What it means, checked. Two requests under one idempotency key are the same one where their commands are
    /// serialized alike: so it holds no unordered collection, and nothing but what was asked for.
    type Command: Serialize + Send + Sync + 'static;
    /// The reply on the wire.
    type Reply: Message + Name + Default + 'static;

    /// The client's key: a UUID.
    fn idempotency_key(request: &Self::Request) -> &str;

    /// Checks the request and turns it into a command.
    fn parse(request: Self::Request, caller: &Caller) -> Result<Self::Command>;

    /// Does it. May run again, in a new transaction, when PostgreSQL rolls back over a concurrent change.
    fn handle(tx: &mut Tx, command: &Self::Command) -> impl Future<Output = Result<Self::Reply>> + Send;
}

/// A call that changes something, decided together with others that wait: pure database effects of many in one
/// transaction.
pub trait BatchHandler: Send + Sync + 'static {
    /// Name, method, limits and [batch](Spec::batched).
    const SPEC: &'static Spec;
    /// Who may call. Always somebody with a token: receipts are kept per caller.
    const ACCESS: Access;
    /// The message on the wire.
    type Request: Message + Name + Default + 'static;
    /// What it means, checked. Two requests under one idempotency key are the same one where their commands are
    /// serialized alike: so it holds no unordered collection, and nothing but what was asked for.
    type Command: Serialize + Send + Sync + 'static;
    /// The reply on the wire.
    type Reply: Message + Name + Default + 'static;
    /// What calls contend for.
    type Key: Hash + Eq + Clone + Send + Sync + 'static;

    /// The client's key: a UUID.
    fn idempotency_key(request: &Self::Request) -> &str;

    /// Checks the request and turns it into a command.
    fn parse(request: Self::Request, caller: &Caller) -> Result<Self::Command>;

    /// Returns what the call is about: calls with the same key are decided in the order in which they came.
    fn key(command: &Self::Command) -> Self::Key;

    /// Decides all of them: one verdict each, in their order. A refused one must have had no effect. May run again, in
    /// a new transaction and with fewer of them, when PostgreSQL rolls back or one of them makes it fail.
    fn handle(
        tx: &mut Tx,
        batch: &[Member<Self::Command>],
    ) -> impl Future<Output = Result<Verdicts<Self::Reply>>> + Send;
}

/// A call that only reads.
pub trait IoHandler: Send + Sync + 'static {
    /// Name, method and limits.
    const SPEC: &'static Spec;
    /// Who may call.
    const ACCESS: Access;
    /// The message on the wire.
    type Request: Message + Name + Default + 'static;
    /// What it means, checked.
    type Query: Send + Sync + 'static;
    /// The reply on the wire.
    type Reply: Message + Name + Default + 'static;

    /// Checks the request and turns it into a query.
    fn parse(request: Self::Request, caller: Option<&Caller>) -> Result<Self::Query>;

    /// Answers it.
    fn handle(io: &Io, query: &Self::Query) -> impl Future<Output = Result<Self::Reply>> + Send;
}

/// A call that is answered by a stream, for as long as the client listens: reads only.
pub trait StreamHandler: Send + Sync + 'static {
    /// Name, method and limits. The concurrency is how many streams are open at the same time; the time-out does not
    /// count.
    const SPEC: &'static Spec;
    /// Who may call.
    const ACCESS: Access;
    /// The message on the wire.
    type Request: Message + Name + Default + 'static;
    /// What it means, checked.
    type Query: Send + Sync + 'static;
    /// One answer on the wire.
    type Reply: Message + Name + Default + 'static;
    /// True if a drain ends it well. Otherwise with UNAVAILABLE, so that its client knows to go elsewhere; but some
    /// wait longer before they come back from an error than from an end.
    const ENDS_WELL_IN_A_DRAIN: bool = false;

    /// Checks the request and turns it into a query.
    fn parse(request: Self::Request, caller: Option<&Caller>) -> Result<Self::Query>;

    /// Answers until it returns, the client leaves or the process drains: it is dropped then.
    fn handle(io: &Io, query: &Self::Query, out: &Sink<Self::Reply>) -> impl Future<Output = Result<()>> + Send;
}
