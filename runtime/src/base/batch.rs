//! How handlers are batched, and what they get.
//!
//! A batched handler is a function from a transaction and a batch to one verdict for each of its members. The verdicts
//! stand in the members' order. A member that is refused or fails has had no effect: the handler decides before it
//! writes, and writes only for those that passed. When the handler itself fails (an error, a panic, a time-out) nothing
//! of the batch stays, and the runtime halves it until the one to blame is alone.
use crate::{Error, Invocation, Result};

/// One of a batch: what it asks for, and which run it is.
#[derive(Debug, Clone)]
pub struct Member<T> {
    /// The command, message or job.
    pub input: T,
    /// Its own ids and deadline, for [`Tx::emit_for`](crate::Tx::emit_for).
    pub invocation: Invocation,
}

/// Verdicts of a batch's members, in their order.
pub type Verdicts<T> = Vec<Result<T>>;

/// A handler that loses count must not have one member answered with another's verdict.
pub(crate) fn counted<T>(verdicts: Verdicts<T>, members: usize) -> Result<Verdicts<T>> {
    if verdicts.len() == members {
        return Ok(verdicts);
    }
    Err(Error::internal(anyhow::anyhow!("{} verdicts were given for {members} members", verdicts.len())))
}

/// Ids of many runs, for a log line that any of them finds.
pub(crate) fn correlation_ids<'a>(invocations: impl Iterator<Item = &'a Invocation>) -> String {
    invocations.map(|invocation| invocation.correlation_id.as_str()).collect::<Vec<_>>().join(" ")
}
