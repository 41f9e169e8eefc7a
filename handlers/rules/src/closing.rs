//! Who won. Closing is a predicate on time: from `ends_at` on no bid is taken, whether the close is recorded yet or
//! not.
use crate::{Auction, UserId, rfc_3339};
use chrono::{DateTime, Utc};

/// The way an auction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The leader won at the price.
    Sold {
        /// Who won.
        winner: UserId,
        /// What they owe, in minor units.
        hammer_price_minor: i64,
    },
    /// Nobody bid.
    Unsold,
}

/// The auction is still running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bidding runs until {}", rfc_3339(*ends_at))]
pub struct NotDue {
    /// When it may be closed.
    pub ends_at: DateTime<Utc>,
}

/// Decides the outcome at `now`, read as for a bid.
pub fn close(auction: &Auction, now: DateTime<Utc>) -> Result<Outcome, NotDue> {
    if now < auction.ends_at {
        return Err(NotDue { ends_at: auction.ends_at });
    }
    Ok(match &auction.standing {
        Some((price_minor, leader)) => Outcome::Sold { winner: leader.clone(), hammer_price_minor: *price_minor },
        None => Outcome::Unsold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BID_CEILING_MINOR;
    use crate::Ladder;
    use chrono::TimeDelta;

    #[test]
    fn an_auction_closes_at_its_end_and_the_leader_wins() {
        let ends_at = DateTime::UNIX_EPOCH + TimeDelta::seconds(10);
        let mut auction = Auction {
            seller: "sam".parse().unwrap(),
            start_price_minor: 100,
            standing: Some((250, "ann".parse().unwrap())),
            ladder: Ladder::V1,
            ceiling_minor: BID_CEILING_MINOR,
            starts_at: DateTime::UNIX_EPOCH,
            ends_at,
        };
        assert_eq!(close(&auction, ends_at - TimeDelta::microseconds(1)), Err(NotDue { ends_at }));
        let sold = Outcome::Sold { winner: "ann".parse().unwrap(), hammer_price_minor: 250 };
        assert_eq!(close(&auction, ends_at), Ok(sold));
        auction.standing = None;
        assert_eq!(close(&auction, ends_at), Ok(Outcome::Unsold));
    }
}
