//! What clients did and what they were told.
use gavel_proto::v1::PlaceBidResponse;
use poem_grpc::Code;
use std::time::Duration;

/// What a client knows of its call.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// It was done.
    Done(PlaceBidResponse),
    /// It was not done, and never will be by that call.
    Refused(String),
}

/// One bid, with all its tries.
#[derive(Debug, Clone, PartialEq)]
pub struct Bid {
    /// Whose.
    pub bidder: &'static str,
    /// On which item.
    pub item_id: String,
    /// How much.
    pub amount: i64,
    /// Under which idempotency key, on every try.
    pub key: String,
    /// What the tries before the last one said: nobody knew then.
    pub unknown: Vec<String>,
    /// What the last try said.
    pub told: Told,
    /// From the first try to the last answer.
    pub took: Duration,
}

/// Everything that clients did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Bids, in the order in which they ended.
    pub bids: Vec<Bid>,
    /// Items that were published, as their sellers were told.
    pub items: Vec<String>,
}

/// Whether a call that failed so may have been done: then it is made again, with the same key.
pub fn is_unknown(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Internal
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Cancelled
            | Code::Aborted
            | Code::ResourceExhausted
    )
}
