//! The auction's rules: who may bid, how much, until when, and who won.
//!
//! Everything here is a pure function of its arguments. There is no clock (the caller read the database's under the
//! item's lock), no database and no async, so every rule can be tested by itself and replayed years later.
//! What the rules refuse, they refuse with a typed reason that names what would have been allowed.

mod bidding;
mod cancelling;
mod closing;
mod ladder;
mod listing;
mod money;
mod simultaneous;
mod text;
mod user;

pub use bidding::{Acceptance, Auction, Bid, Refusal, RefusalReason, decide};
pub use cancelling::{Cancellation, Canceller, MAX_REASON_CHARS, NotCancelled, cancel, reason};
pub use closing::{NotDue, Outcome, close};
pub use ladder::Ladder;
pub use listing::{InvalidListing, Listing, MAX_DURATION_DAYS, MAX_TITLE_CHARS, Moment, Period};
pub use money::{BID_CEILING_MINOR, Currency, InvalidAmount, InvalidCurrency, MAX_AMOUNT_MINOR, amount, money};
pub use simultaneous::decide_all;
pub use text::{InvalidText, shown_text};
pub use user::{InvalidUserId, UserId};

use chrono::{DateTime, SecondsFormat, Utc};

/// A point in time as messages show it: RFC 3339, to the microsecond, as the database keeps it.
pub fn rfc_3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
