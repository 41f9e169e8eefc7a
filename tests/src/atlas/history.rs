//! What clients did and what they were told.
use crate::Failure;
use chrono::{DateTime, Utc};
use gavel_proto::v1::PlaceBidResponse;
use poem_grpc::Code;
use std::time::{Duration, Instant};

/// What a client knows of its call.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// It was done.
    Done(PlaceBidResponse),
    /// It was not done, and never will be by that call: why, and what would have been enough.
    Refused(String, Option<i64>),
}

impl Told {
    /// What an answer says, that is one.
    pub fn of(answer: Result<PlaceBidResponse, Failure>) -> Self {
        match answer {
            Ok(reply) => Self::Done(reply),
            Err(failure) => {
                let minimum = failure.refused.map(|refused| refused.next_minimum_minor).filter(|minimum| *minimum > 0);
                Self::Refused(failure.message, minimum)
            }
        }
    }
}

/// One bid, with all its tries.
#[derive(Debug, Clone, PartialEq)]
pub struct Bid {
    /// Whose.
    pub bidder: String,
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
    /// When that came.
    pub answered_at: DateTime<Utc>,
}

/// Another call that was made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedAgain {
    /// The handler that answers it.
    pub handler: &'static str,
    /// What the tries before the last one said: nobody knew then.
    pub unknown: Vec<String>,
}

/// Everything that clients did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Bids, in the order in which they ended.
    pub bids: Vec<Bid>,
    /// Items that were published, as their sellers were told.
    pub items: Vec<String>,
    /// Of their other calls those that they had to make again.
    pub asked_again: Vec<AskedAgain>,
}

impl History {
    /// Keeps of a call that is no bid what its tries said before the last one.
    pub fn note(&mut self, handler: &'static str, unknown: Vec<String>) {
        if !unknown.is_empty() {
            self.asked_again.push(AskedAgain { handler, unknown });
        }
    }

    /// Whether anybody did not know for a while what had become of a call.
    pub fn was_unknown(&self) -> bool {
        !self.asked_again.is_empty() || self.bids.iter().any(|bid| !bid.unknown.is_empty())
    }
}

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// A client that hears nothing for so long asks again.
const PATIENCE: Duration = Duration::from_secs(3);

/// Makes a call until it is known what became of it; says what the tries before said.
///
/// # Panics
/// When nobody has answered for so long as `gives_up` says: that is a fault of its own.
pub async fn until_known<T>(
    gives_up: Duration,
    mut call: impl AsyncFnMut() -> Result<T, Failure>,
) -> (Result<T, Failure>, Vec<String>) {
    let (began, mut unknown) = (Instant::now(), Vec::new());
    loop {
        let why = match tokio::time::timeout(PATIENCE, call()).await {
            Ok(Err(failure)) if is_unknown(failure.code) => format!("{:?}: {}", failure.code, failure.message),
            Ok(result) => return (result, unknown),
            Err(_) => "no answer".to_owned(),
        };
        assert!(began.elapsed() < gives_up, "nobody answers: {why}, after {unknown:?}");
        unknown.push(why);
        tokio::time::sleep(PAUSE).await;
    }
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
