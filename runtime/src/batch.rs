//! How handlers are batched, and what they get.
//!
//! A batched handler is a function from a transaction and a batch to one verdict for each of its members. The verdicts stand
//! in the members' order. A member that is refused or fails has had no effect: the handler decides before it writes, and
//! writes only for those that passed. When the handler itself fails (an error, a panic, a time-out) nothing of the batch
//! stays, and the runtime halves it until the one to blame is alone.
use crate::{
    Error, Invocation, Result,
    spec::{MAX_BATCH, MAX_BATCH_BYTES, MAX_LANES},
};

/// How calls or messages are combined: whatever waits becomes one batch, in one transaction. Nothing ever waits for a batch
/// to fill: it grows only while those before it are being committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// The most entries of one batch, up to [`MAX_BATCH`].
    pub size: usize,
    /// The most bytes of one batch, of its encoded entries; a single larger one is a batch by itself.
    pub bytes: usize,
    /// Batches at the same time, in one process: their lanes. Entries of one key are in one of them at a time, in their
    /// order. For messages, each lane is a channel.
    pub lanes: usize,
    /// Calls of one key that wait or are being decided at the same time: one more is refused. Not for messages.
    pub per_key: usize,
}

impl Batch {
    /// Up to 256 entries and 1 MiB, four batches at the same time, 1 024 calls of one key.
    pub const DEFAULT: Self = Self { size: 256, bytes: 1 << 20, lanes: 4, per_key: 1_024 };

    /// With another size.
    #[must_use]
    pub const fn size(self, size: usize) -> Self {
        Self { size, ..self }
    }

    /// With another limit in bytes.
    #[must_use]
    pub const fn bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    /// With another number of lanes.
    #[must_use]
    pub const fn lanes(self, lanes: usize) -> Self {
        Self { lanes, ..self }
    }

    /// With another limit per key.
    #[must_use]
    pub const fn per_key(self, per_key: usize) -> Self {
        Self { per_key, ..self }
    }

    pub(crate) fn faults(&self, mut say: impl FnMut(String)) {
        if self.size == 0 || self.size > MAX_BATCH {
            say(format!("a batch of {} is out of range; allowed: 1 to {MAX_BATCH}", self.size));
        }
        if self.bytes == 0 || self.bytes > MAX_BATCH_BYTES {
            say(format!("a batch of {} bytes is out of range; allowed: 1 to {MAX_BATCH_BYTES}", self.bytes));
        }
        if self.lanes == 0 || self.lanes > MAX_LANES {
            say(format!("{} lanes are out of range; allowed: 1 to {MAX_LANES}", self.lanes));
        }
        if self.per_key == 0 {
            say("a limit of 0 calls per key lets nothing in; allowed: from 1".to_owned());
        }
    }
}

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
