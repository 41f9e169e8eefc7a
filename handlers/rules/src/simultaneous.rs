//! Bids at the same instant: which of them comes first?
use crate::{
    Acceptance, Auction, Bid, Refusal,
    bidding::{decide, is_acceptable},
};
use chrono::{DateTime, Utc};

/// Decides bids that arrived so close together that they are decided at one instant, and moves the auction on with each
/// that is accepted. Gives the verdicts in the order of the decisions, each with its bid's place in `bids`.
///
/// So that chance does not refuse a bid that was high enough when the instant came, the lowest is decided first; of
/// equal ones, the one that came first. A bid that would raise the next minimum above the highest one is decided after
/// it: the highest of simultaneous bids leads in the end, whatever else was bid.
pub fn decide_all(
    auction: &mut Auction,
    bids: &[&Bid],
    now: DateTime<Utc>,
) -> Vec<(usize, Result<Acceptance, Refusal>)> {
    let mut verdicts = Vec::with_capacity(bids.len());
    let mut later = Vec::new();
    let highest = highest(auction, bids, now);
    for place in from_lowest(bids) {
        if highest.is_some_and(|highest| stands_in_its_way(auction, bids[place], highest, now)) {
            later.push(place);
        } else {
            verdicts.push((place, decide_next(auction, bids[place], now)));
        }
    }
    verdicts.extend(later.into_iter().map(|place| (place, decide_next(auction, bids[place], now))));
    verdicts
}

fn from_lowest(bids: &[&Bid]) -> Vec<usize> {
    let mut order: Vec<_> = (0..bids.len()).collect();
    order.sort_by_key(|place| bids[*place].amount_minor);
    order
}

/// The highest of the amounts that would be accepted if theirs were the only bid. None where there is but one bid.
fn highest(auction: &Auction, bids: &[&Bid], now: DateTime<Utc>) -> Option<i64> {
    if bids.len() < 2 {
        return None;
    }
    bids.iter().filter(|bid| is_acceptable(auction, bid, now)).map(|bid| bid.amount_minor).max()
}

/// Returns whether the bid, accepted now, would leave no room for the highest.
fn stands_in_its_way(auction: &Auction, bid: &Bid, highest_minor: i64, now: DateTime<Utc>) -> bool {
    bid.amount_minor < highest_minor
        && auction.minimum_after_minor(bid.amount_minor).is_none_or(|minimum| minimum > highest_minor)
        && is_acceptable(auction, bid, now)
}

fn decide_next(auction: &mut Auction, bid: &Bid, now: DateTime<Utc>) -> Result<Acceptance, Refusal> {
    let accepted = decide(auction, bid, now)?;
    auction.standing = Some((accepted.price_minor, bid.bidder.clone()));
    Ok(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BID_CEILING_MINOR;
    use crate::{Ladder, UserId};
    use chrono::TimeDelta;
    use proptest::prelude::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    fn auction() -> Auction {
        Auction {
            seller: user("sam"),
            start_price_minor: 1_000,
            standing: None,
            ladder: Ladder::V1,
            ceiling_minor: BID_CEILING_MINOR,
            starts_at: NOW,
            ends_at: NOW + TimeDelta::hours(1),
        }
    }

    fn bids(amounts: &[i64]) -> Vec<Bid> {
        let bid =
            |(n, amount_minor): (usize, &i64)| Bid { bidder: user(&format!("b{n}")), amount_minor: *amount_minor };
        amounts.iter().enumerate().map(bid).collect()
    }

    /// The places in the order of decision, those refused in brackets.
    fn decided(amounts: &[i64]) -> Vec<String> {
        let bids = bids(amounts);
        let verdicts = decide_all(&mut auction(), &bids.iter().collect::<Vec<_>>(), NOW);
        verdicts
            .iter()
            .map(|(place, verdict)| if verdict.is_ok() { format!("{place}") } else { format!("({place})") })
            .collect()
    }

    #[test]
    fn the_lowest_is_first_and_of_equal_ones_the_earlier() {
        assert_eq!(decided(&[3_000, 1_000, 2_000]), ["1", "2", "0"]);
        assert_eq!(decided(&[2_000, 2_000]), ["0", "(1)"]);
    }

    #[test]
    fn one_that_leaves_no_room_for_the_highest_comes_after_it() {
        assert_eq!(decided(&[1_040, 1_000]), ["0", "(1)"], "after 1 000 the minimum is 1 050");
        assert_eq!(decided(&[1_000, 1_050]), ["0", "1"]);
    }

    proptest! {
        #[test]
        fn the_highest_acceptable_leads_and_each_is_decided_once(
            amounts in proptest::collection::vec(1_i64..20_000, 1..40),
        ) {
            let (mut auction, bids) = (auction(), bids(&amounts));
            let verdicts = decide_all(&mut auction, &bids.iter().collect::<Vec<_>>(), NOW);
            let mut places: Vec<_> = verdicts.iter().map(|(place, _)| *place).collect();
            places.sort_unstable();
            prop_assert_eq!(places, (0..bids.len()).collect::<Vec<_>>());
            let highest = amounts.iter().copied().filter(|amount| *amount >= 1_000).max();
            prop_assert_eq!(auction.standing.map(|(price, _)| price), highest);
        }
    }
}
