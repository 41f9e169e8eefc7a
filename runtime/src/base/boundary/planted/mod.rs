//! Bugs on purpose: what is said to a server is not what stands in the code, but what somebody might have written who
//! had not thought of something. So it can be tried which test finds that.
//!
//! Only a build with the feature `planted` has them, and it plants those of `GAVEL_PLANTED`: [`Slip`]s in JSON. Without
//! the feature everything here says what it is given.
use serde::{Deserialize, Serialize};

/// The variable.
pub const VARIABLE: &str = "GAVEL_PLANTED";

/// One thing that is said or done otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slip {
    /// Statements and scripts with this text in them have another in its place.
    Text {
        /// What stands in the code.
        said: String,
        /// What is said instead.
        instead: String,
    },
    /// What was done before a statement with this text in it stays, whatever becomes of the statement.
    CommitBefore(String),
    /// A statement that begins like this is done at once, in a session of its own, whatever becomes of the transaction.
    Autonomous(String),
    /// What is published counts as confirmed at once.
    ConfirmNotAwaited,
    /// What is delivered counts as acknowledged at once.
    TakenOnDelivery,
}

#[cfg(feature = "planted")]
mod some;
#[cfg(feature = "planted")]
pub(crate) use some::*;

#[cfg(not(feature = "planted"))]
mod none;
#[cfg(not(feature = "planted"))]
pub(crate) use none::*;
