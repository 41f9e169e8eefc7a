//! gRPC calls.
//!
//! A call that changes something carries an idempotency key, a UUID chosen by the client. Its effect, its events and
//! the stored reply commit together; the same key again gets the same reply, byte for byte; with another request it is a
//! [`Conflict`](crate::Class::Conflict). A refusal is stored too: it was an answer.

mod serve;

pub use serve::{serve_io, serve_tx};

use crate::{
    Io, Result, Tx,
    auth::{Access, Caller},
    spec::Spec,
};
use prost::Message;

/// A call that changes something: pure database effects in one transaction.
pub trait TxHandler: Send + Sync + 'static {
    /// Name, method and limits.
    const SPEC: &'static Spec;
    /// Who may call. Always somebody with a token: receipts are kept per caller.
    const ACCESS: Access;
    /// The message on the wire.
    type Request: Message + Default + 'static;
    /// What it means, checked.
    type Command: Send + Sync + 'static;
    /// The reply on the wire.
    type Reply: Message + Default + 'static;

    /// The client's key: a UUID.
    fn idempotency_key(request: &Self::Request) -> &str;

    /// Checks the request and turns it into a command.
    fn parse(request: Self::Request, caller: &Caller) -> Result<Self::Command>;

    /// Does it. May run again, in a new transaction, when PostgreSQL rolls back over a concurrent change.
    fn handle(tx: &mut Tx, command: &Self::Command) -> impl Future<Output = Result<Self::Reply>> + Send;
}

/// A call that only reads.
pub trait IoHandler: Send + Sync + 'static {
    /// Name, method and limits.
    const SPEC: &'static Spec;
    /// Who may call.
    const ACCESS: Access;
    /// The message on the wire.
    type Request: Message + Default + 'static;
    /// What it means, checked.
    type Query: Send + Sync + 'static;
    /// The reply on the wire.
    type Reply: Message + Default + 'static;

    /// Checks the request and turns it into a query.
    fn parse(request: Self::Request, caller: Option<&Caller>) -> Result<Self::Query>;

    /// Answers it.
    fn handle(io: &Io, query: &Self::Query) -> impl Future<Output = Result<Self::Reply>> + Send;
}
