//! An answer on its way to the edge.
use crate::{Class, Result, base::metadata::Metadata, postgres::receipt::Outcome};
use bytes::Bytes;

/// A reply in protobuf, and what goes beside it.
pub(crate) struct Reply {
    pub(crate) message: Bytes,
    pub(crate) metadata: Option<Box<Metadata>>,
}

impl From<Vec<u8>> for Reply {
    fn from(message: Vec<u8>) -> Self {
        Self { message: message.into(), metadata: None }
    }
}

/// The outcome of a call that changes something, now or when it was first made.
pub(super) struct Decided {
    pub(super) outcome: Outcome,
    pub(super) is_replayed: bool,
}

impl Decided {
    pub(super) fn now(outcome: Outcome) -> Self {
        Self { outcome, is_replayed: false }
    }

    /// What was answered before; unless it was another call that the key was used for.
    pub(super) fn before(outcome: Outcome) -> Self {
        let is_replayed = outcome.as_ref().err().is_none_or(|error| error.class() != Class::Conflict);
        Self { outcome, is_replayed }
    }

    pub(super) fn into_reply(self) -> Result<Reply> {
        let metadata = self.is_replayed.then(Metadata::replayed);
        match self.outcome {
            Ok(message) => Ok(Reply { message: message.into(), metadata: metadata.map(Box::new) }),
            Err(refusal) => Err(match metadata {
                Some(metadata) => refusal.with_metadata(metadata),
                None => refusal,
            }),
        }
    }
}
