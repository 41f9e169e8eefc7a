//! Who may take an item out of the auction, and what becomes of it.
use crate::{Auction, InvalidText, UserId, rfc_3339, shown_text};
use chrono::{DateTime, TimeDelta, Utc};

/// The longest reason, in characters.
pub const MAX_REASON_CHARS: usize = 200;

/// The one who wants an item cancelled.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Canceller {
    /// A seller: for their own items, while there is no bid.
    Seller(UserId),
    /// An operator, who has said why: for any, until its end.
    Operator,
}

/// The period of a cancelled item: it is over, also for who knows nothing of cancelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancellation {
    /// Before the end, whenever it was to be.
    pub starts_at: DateTime<Utc>,
    /// The moment of the decision.
    pub ends_at: DateTime<Utc>,
}

/// Why an item is not cancelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCancelled {
    /// It is another's.
    #[error("the item is another seller's; allowed: its seller, or an operator who gives a reason")]
    AnothersItem,
    /// Somebody has bid.
    #[error("there are bids on the item; allowed: an operator who gives a reason")]
    HasBids,
    /// It is over.
    #[error("the auction ended at {}; allowed: before its end", rfc_3339(*ends_at))]
    Ended {
        /// When.
        ends_at: DateTime<Utc>,
    },
}

/// Decides at `now`, read as for a bid.
pub fn cancel(auction: &Auction, by: &Canceller, now: DateTime<Utc>) -> Result<Cancellation, NotCancelled> {
    if let Canceller::Seller(seller) = by {
        if *seller != auction.seller {
            return Err(NotCancelled::AnothersItem);
        }
        if auction.standing.is_some() && now < auction.ends_at {
            return Err(NotCancelled::HasBids);
        }
    }
    if now >= auction.ends_at {
        return Err(NotCancelled::Ended { ends_at: auction.ends_at });
    }
    Ok(Cancellation { starts_at: auction.starts_at.min(now - TimeDelta::microseconds(1)), ends_at: now })
}

/// A reason as people read it; none is given where it is empty.
pub fn reason(given: &str) -> Result<String, InvalidText> {
    if given.is_empty() { Ok(String::new()) } else { shown_text(given, MAX_REASON_CHARS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BID_CEILING_MINOR;
    use crate::Ladder;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn auction(standing: Option<(i64, UserId)>) -> Auction {
        let seller = "sam".parse().unwrap();
        Auction {
            seller,
            start_price_minor: 100,
            standing,
            ladder: Ladder::V1,
            ceiling_minor: BID_CEILING_MINOR,
            starts_at: at(10),
            ends_at: at(20),
        }
    }

    fn seller(name: &str) -> Canceller {
        Canceller::Seller(name.parse().unwrap())
    }

    #[test]
    fn a_seller_cancels_their_own_item_while_there_is_no_bid_and_an_operator_any() {
        let (free, contested) = (auction(None), auction(Some((250, "ann".parse().unwrap()))));
        let cancelled = Ok(Cancellation { starts_at: at(10), ends_at: at(15) });
        assert_eq!(cancel(&free, &seller("sam"), at(15)), cancelled);
        assert_eq!(cancel(&free, &seller("eve"), at(15)), Err(NotCancelled::AnothersItem));
        assert_eq!(cancel(&contested, &seller("sam"), at(15)), Err(NotCancelled::HasBids));
        assert_eq!(cancel(&contested, &Canceller::Operator, at(15)), cancelled);
    }

    #[test]
    fn what_has_ended_stays_as_it_is() {
        let contested = auction(Some((250, "ann".parse().unwrap())));
        for by in [seller("sam"), Canceller::Operator] {
            assert_eq!(cancel(&contested, &by, at(20)), Err(NotCancelled::Ended { ends_at: at(20) }));
        }
        assert!(cancel(&contested, &Canceller::Operator, at(20) - TimeDelta::microseconds(1)).is_ok());
    }

    #[test]
    fn one_that_has_not_begun_is_over_as_well() {
        let cancelled = cancel(&auction(None), &seller("sam"), at(5)).unwrap();
        assert_eq!(cancelled.ends_at, at(5));
        assert!(cancelled.starts_at < cancelled.ends_at);
    }

    #[test]
    fn a_reason_can_be_seen() {
        assert_eq!(reason("").unwrap(), "");
        assert_eq!(reason("  a fake ").unwrap(), "a fake");
        assert!(reason("\u{200B}").is_err() && reason(&"x".repeat(201)).is_err());
    }
}
