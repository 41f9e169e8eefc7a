//! The step ladder: by how much a new bid must beat the price.

/// A published version of the ladder. An item keeps the version it was published with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ladder {
    /// eBay's published increments, for currencies with two decimals.
    V1,
}

/// (price from, step), both in minor units; the first row also covers what is below it.
const V1_STEPS: [(i64, i64); 10] = [
    (1, 5),
    (100, 25),
    (500, 50),
    (2_500, 100),
    (10_000, 250),
    (25_000, 500),
    (50_000, 1_000),
    (100_000, 2_500),
    (250_000, 5_000),
    (500_000, 10_000),
];

impl Ladder {
    /// The ladder new items are published with.
    pub const CURRENT: Self = Self::V1;

    /// The number stored with an item.
    pub const fn version(self) -> i16 {
        match self {
            Self::V1 => 1,
        }
    }

    /// The ladder of that number, if there is one.
    pub const fn from_version(version: i16) -> Option<Self> {
        match version {
            1 => Some(Self::V1),
            _ => None,
        }
    }

    /// The step at `price_minor`, in minor units.
    pub fn step_minor(self, price_minor: i64) -> i64 {
        let reached = V1_STEPS.iter().rev().find(|(from, _)| price_minor >= *from);
        reached.map_or(V1_STEPS[0].1, |(_, step)| *step)
    }

    /// The lowest amount a new bid may have, in minor units: the start price while there is no bid, else price + step.
    /// Near the ceiling the ceiling itself, which is less than a step away; at it none, since no higher bid is
    /// possible.
    pub fn next_minimum_minor(
        self,
        start_price_minor: i64,
        price_minor: Option<i64>,
        ceiling_minor: i64,
    ) -> Option<i64> {
        let Some(price) = price_minor else { return Some(start_price_minor) };
        (price < ceiling_minor).then(|| ceiling_minor.min(price + self.step_minor(price)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BID_CEILING_MINOR;

    #[test]
    fn each_step_begins_at_its_price_and_not_before() {
        for pair in V1_STEPS.windows(2) {
            let (from, step) = pair[1];
            assert_eq!(Ladder::V1.step_minor(from), step);
            assert_eq!(Ladder::V1.step_minor(from - 1), pair[0].1);
        }
        assert_eq!(Ladder::V1.step_minor(i64::MAX), 10_000);
    }

    #[test]
    fn the_first_bid_starts_at_the_start_price() {
        assert_eq!(Ladder::V1.next_minimum_minor(700, None, BID_CEILING_MINOR), Some(700));
        assert_eq!(Ladder::V1.next_minimum_minor(700, Some(700), BID_CEILING_MINOR), Some(750));
    }

    #[test]
    fn the_last_step_is_as_long_as_it_takes_to_the_ceiling() {
        let minimum_after = |price| Ladder::V1.next_minimum_minor(1, Some(price), BID_CEILING_MINOR);
        assert_eq!(minimum_after(BID_CEILING_MINOR - 10_001), Some(BID_CEILING_MINOR - 1));
        assert_eq!(minimum_after(BID_CEILING_MINOR - 9_999), Some(BID_CEILING_MINOR));
        assert_eq!(minimum_after(BID_CEILING_MINOR - 1), Some(BID_CEILING_MINOR));
        assert_eq!(minimum_after(BID_CEILING_MINOR), None);
    }

    #[test]
    fn a_version_names_its_ladder() {
        assert_eq!(Ladder::from_version(Ladder::CURRENT.version()), Some(Ladder::CURRENT));
        assert_eq!(Ladder::from_version(0), None);
    }
}
