//! Is this bid accepted, and what does it change?
use crate::{Ladder, UserId, money, rfc_3339};
use chrono::{DateTime, Utc};

/// What a decision needs to know of an item, read under its row lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auction {
    /// Who sells.
    pub seller: UserId,
    /// The lowest first bid, in minor units.
    pub start_price_minor: i64,
    /// The current price in minor units and who leads; none while there is no bid.
    pub standing: Option<(i64, UserId)>,
    /// The steps this item was published with.
    pub ladder: Ladder,
    /// The highest bid that is taken, in minor units.
    pub ceiling_minor: i64,
    /// Bids are taken from this moment on.
    pub starts_at: DateTime<Utc>,
    /// Bids are taken before this moment.
    pub ends_at: DateTime<Utc>,
}

impl Auction {
    /// The lowest amount a new bid may have, in minor units; none where no higher bid is possible.
    pub fn next_minimum_minor(&self) -> Option<i64> {
        let price_minor = self.standing.as_ref().map(|(price, _)| *price);
        self.ladder.next_minimum_minor(self.start_price_minor, price_minor, self.ceiling_minor)
    }

    /// The lowest amount of the bid after one of that amount, in minor units; none where no higher bid is possible.
    pub(crate) fn minimum_after_minor(&self, amount_minor: i64) -> Option<i64> {
        self.ladder.next_minimum_minor(self.start_price_minor, Some(amount_minor), self.ceiling_minor)
    }
}

/// What a bidder asks for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Bid {
    /// Who bids.
    pub bidder: UserId,
    /// In minor units of the item's currency.
    pub amount_minor: i64,
}

/// An accepted bid: what the item becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The new price, in minor units.
    pub price_minor: i64,
    /// The lowest amount of the bid after this one; none where no higher bid is possible.
    pub next_minimum_minor: Option<i64>,
    /// Who led until now, unless it was the bidder.
    pub outbid: Option<UserId>,
}

/// A refused bid, and what would have been accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// The lowest amount that would be accepted, in minor units; none where no higher bid is possible.
    pub next_minimum_minor: Option<i64>,
}

/// Why a bid is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// The amount does not reach the next minimum.
    BelowMinimum {
        /// The next minimum, in minor units.
        minimum_minor: i64,
    },
    /// The amount exceeds the product ceiling.
    AboveCeiling,
    /// The price has reached the product ceiling: no bid can beat it.
    AtCeiling,
    /// Sellers don't bid on their own items.
    SellerMayNotBid,
    /// Bidding has not begun.
    NotStarted {
        /// When it begins.
        starts_at: DateTime<Utc>,
    },
    /// Bidding is over: the end itself no longer counts.
    Ended {
        /// When it ended.
        ends_at: DateTime<Utc>,
    },
}

impl RefusalReason {
    /// Says it to the bidder, with amounts in the item's currency.
    pub fn explain(self, ceiling_minor: i64, currency: &str) -> String {
        let ceiling = money(ceiling_minor, currency);
        match self {
            Self::BelowMinimum { minimum_minor } => {
                format!("the bid is below the next minimum, {}", money(minimum_minor, currency))
            }
            Self::AboveCeiling => format!("the bid is above the highest amount taken, {ceiling}"),
            Self::AtCeiling => {
                format!("the price is the highest amount taken, {ceiling}: no higher bid is possible")
            }
            Self::SellerMayNotBid => "the seller may not bid on their own item".to_owned(),
            Self::NotStarted { starts_at } => format!("bidding starts at {}", rfc_3339(starts_at)),
            Self::Ended { ends_at } => format!("bidding ended at {}", rfc_3339(ends_at)),
        }
    }
}

/// Decides one bid at `now`, which the caller read from the database's clock after taking the item's lock.
///
/// An accepted bid leads at its full amount, so the price strictly rises with every bid.
pub fn decide(auction: &Auction, bid: &Bid, now: DateTime<Utc>) -> Result<Acceptance, Refusal> {
    let minimum_minor = auction.next_minimum_minor();
    if let Some(reason) = objection(auction, bid, minimum_minor, now) {
        return Err(Refusal { reason, next_minimum_minor: minimum_minor });
    }
    let previous = auction.standing.as_ref().map(|(_, leader)| leader);
    Ok(Acceptance {
        price_minor: bid.amount_minor,
        next_minimum_minor: auction.minimum_after_minor(bid.amount_minor),
        outbid: previous.filter(|leader| **leader != bid.bidder).cloned(),
    })
}

/// Returns whether the bid would be accepted.
pub(crate) fn is_acceptable(auction: &Auction, bid: &Bid, now: DateTime<Utc>) -> bool {
    objection(auction, bid, auction.next_minimum_minor(), now).is_none()
}

fn objection(auction: &Auction, bid: &Bid, minimum_minor: Option<i64>, now: DateTime<Utc>) -> Option<RefusalReason> {
    if now < auction.starts_at {
        return Some(RefusalReason::NotStarted { starts_at: auction.starts_at });
    }
    if now >= auction.ends_at {
        return Some(RefusalReason::Ended { ends_at: auction.ends_at });
    }
    if bid.bidder == auction.seller {
        return Some(RefusalReason::SellerMayNotBid);
    }
    if bid.amount_minor > auction.ceiling_minor {
        return Some(RefusalReason::AboveCeiling);
    }
    match minimum_minor {
        None => Some(RefusalReason::AtCeiling),
        Some(minimum_minor) if bid.amount_minor < minimum_minor => Some(RefusalReason::BelowMinimum { minimum_minor }),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BID_CEILING_MINOR;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    fn at(micros: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::microseconds(micros)
    }

    fn auction(standing: Option<(i64, &str)>) -> Auction {
        Auction {
            seller: user("sam"),
            start_price_minor: 1_000,
            standing: standing.map(|(price, leader)| (price, user(leader))),
            ladder: Ladder::V1,
            ceiling_minor: BID_CEILING_MINOR,
            starts_at: at(1_000),
            ends_at: at(2_000),
        }
    }

    fn bid(name: &str, amount_minor: i64) -> Bid {
        Bid { bidder: user(name), amount_minor }
    }

    fn reason(auction: &Auction, bid: &Bid, micros: i64) -> RefusalReason {
        decide(auction, bid, at(micros)).unwrap_err().reason
    }

    #[test]
    fn a_bid_counts_from_the_start_until_just_before_the_end() {
        let (auction, bid) = (auction(None), bid("bob", 1_000));
        assert_eq!(reason(&auction, &bid, 999), RefusalReason::NotStarted { starts_at: at(1_000) });
        assert!(decide(&auction, &bid, at(1_000)).is_ok());
        assert!(decide(&auction, &bid, at(1_999)).is_ok());
        assert_eq!(reason(&auction, &bid, 2_000), RefusalReason::Ended { ends_at: at(2_000) });
    }

    #[test]
    fn the_minimum_is_exact_and_named() {
        let auction = auction(Some((1_000, "ann")));
        let refusal = decide(&auction, &bid("bob", 1_049), at(1_500)).unwrap_err();
        assert_eq!(refusal.next_minimum_minor, Some(1_050));
        let accepted = decide(&auction, &bid("bob", 1_050), at(1_500)).unwrap();
        assert_eq!((accepted.price_minor, accepted.next_minimum_minor), (1_050, Some(1_100)));
        assert_eq!(accepted.outbid, Some(user("ann")));
    }

    #[test]
    fn raising_ones_own_bid_outbids_nobody() {
        let accepted = decide(&auction(Some((1_000, "bob"))), &bid("bob", 2_000), at(1_500)).unwrap();
        assert_eq!(accepted.outbid, None);
    }

    #[test]
    fn the_seller_and_amounts_above_the_ceiling_are_refused() {
        let auction = auction(None);
        assert_eq!(reason(&auction, &bid("sam", 5_000), 1_500), RefusalReason::SellerMayNotBid);
        assert!(decide(&auction, &bid("bob", BID_CEILING_MINOR), at(1_500)).is_ok());
        assert_eq!(reason(&auction, &bid("bob", BID_CEILING_MINOR + 1), 1_500), RefusalReason::AboveCeiling);
        let highest = self::auction(Some((BID_CEILING_MINOR, "ann")));
        assert_eq!(reason(&highest, &bid("bob", BID_CEILING_MINOR), 1_500), RefusalReason::AtCeiling);
    }

    proptest! {
        #[test]
        fn the_price_rises_with_every_accepted_bid_and_stays_with_every_refused_one(
            bids in proptest::collection::vec((0_u8..4, prop_oneof![1_i64..3_000_000_000, 1_999_980_000..=2_000_000_000_i64]), 1..60),
        ) {
            let mut auction = auction(None);
            for (who, amount_minor) in bids {
                let bid = bid(&format!("user{who}"), amount_minor);
                let before = auction.standing.clone();
                let minimum = auction.next_minimum_minor();
                // What is advertised is what would be accepted.
                let at_minimum = minimum.map(|amount_minor| decide(&auction, &Bid { amount_minor, ..bid.clone() }, at(1_500)));
                prop_assert!(at_minimum.is_none_or(|verdict| verdict.is_ok()));
                match decide(&auction, &bid, at(1_500)) {
                    Ok(accepted) => {
                        prop_assert!(minimum.is_some_and(|minimum| accepted.price_minor >= minimum));
                        prop_assert!(before.as_ref().is_none_or(|(price, _)| accepted.price_minor > *price));
                        prop_assert!(accepted.next_minimum_minor.is_none_or(|next| next > accepted.price_minor));
                        auction.standing = Some((accepted.price_minor, bid.bidder));
                    }
                    Err(refusal) => prop_assert!(refusal.next_minimum_minor == minimum),
                }
            }
        }
    }
}
