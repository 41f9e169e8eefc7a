//! What may be put up for auction.
use crate::{Currency, InvalidAmount, InvalidCurrency, InvalidText, money, rfc_3339, shown_text};
use chrono::{DateTime, TimeDelta, Utc};

/// The longest title, in characters.
pub const MAX_TITLE_CHARS: usize = 200;
/// The furthest end from now, in days.
pub const MAX_DURATION_DAYS: i64 = 90;
/// A start that is past by no more than this, in seconds, is now: its clock is not ours. Any other is a mistake.
const MAX_START_PAST_S: i64 = 60;

/// A valid wish to sell something. Times are judged by [`Listing::check_times`], once the database's clock is known.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Listing {
    /// 1 to [`MAX_TITLE_CHARS`] characters, as [`shown_text`] has it.
    pub title: String,
    /// What it is sold in.
    pub currency: Currency,
    /// The lowest first bid, in minor units, at most the bid ceiling.
    pub start_price_minor: i64,
    /// When bidding starts; none for at once.
    pub starts_at: Option<DateTime<Utc>>,
    /// When bidding ends.
    pub ends_at: DateTime<Utc>,
}

/// What is wrong with a listing, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidListing {
    /// The title is empty, too long, or made to deceive.
    #[error("title {0}")]
    Title(#[from] InvalidText),
    /// The currency is not listed.
    #[error(transparent)]
    Currency(#[from] InvalidCurrency),
    /// The start price is no amount.
    #[error("start_price_minor: {0}")]
    StartPrice(#[from] InvalidAmount),
    /// No bid could reach the start price.
    #[error(
        "start_price_minor {given} is above the highest bid taken; allowed: up to {} minor units",
        money::BID_CEILING_MINOR
    )]
    StartPriceAboveCeiling {
        /// In minor units.
        given: i64,
    },
    /// The start is past.
    #[error("starts_at is past (now is {}); allowed: from now on, or none for now", rfc_3339(*now))]
    StartsTooEarly {
        /// The database's clock.
        now: DateTime<Utc>,
    },
    /// The end does not come after the start, or is past.
    #[error("ends_at must come after starts_at and after now, which is {}", rfc_3339(*now))]
    EndsTooEarly {
        /// The database's clock.
        now: DateTime<Utc>,
    },
    /// The end is too far away.
    #[error("ends_at must come within {MAX_DURATION_DAYS} days from now, which is {}", rfc_3339(*now))]
    EndsTooLate {
        /// The database's clock.
        now: DateTime<Utc>,
    },
}

impl Listing {
    /// Checks everything but the times' relation to now.
    pub fn new(
        title: &str,
        currency: &str,
        start_price_minor: i64,
        starts_at: Option<DateTime<Utc>>,
        ends_at: DateTime<Utc>,
    ) -> Result<Self, InvalidListing> {
        let title = shown_text(title, MAX_TITLE_CHARS)?;
        let start_price_minor = money::amount(start_price_minor)?;
        if start_price_minor > money::BID_CEILING_MINOR {
            return Err(InvalidListing::StartPriceAboveCeiling { given: start_price_minor });
        }
        Ok(Self { title, currency: currency.parse()?, start_price_minor, starts_at, ends_at })
    }

    /// Checks the times against `now`, the database's clock, and returns when bidding starts.
    pub fn check_times(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, InvalidListing> {
        let starts_at = self.starts_at.map_or(now, |at| at.max(now));
        if self.starts_at.is_some_and(|at| at < now - TimeDelta::seconds(MAX_START_PAST_S)) {
            return Err(InvalidListing::StartsTooEarly { now });
        }
        if self.ends_at <= starts_at || self.ends_at <= now {
            return Err(InvalidListing::EndsTooEarly { now });
        }
        if self.ends_at > now + TimeDelta::days(MAX_DURATION_DAYS) {
            return Err(InvalidListing::EndsTooLate { now });
        }
        Ok(starts_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn listing(ends_in_seconds: i64, starts_in_seconds: Option<i64>) -> Listing {
        let at = |seconds| NOW + TimeDelta::seconds(seconds);
        Listing::new(" A lamp ", "EUR", 100, starts_in_seconds.map(at), at(ends_in_seconds)).unwrap()
    }

    #[test]
    fn times_are_judged_against_the_given_clock() {
        assert_eq!(listing(10, None).check_times(NOW), Ok(NOW));
        assert_eq!(listing(10, Some(5)).check_times(NOW), Ok(NOW + TimeDelta::seconds(5)));
        assert_eq!(listing(10, Some(-MAX_START_PAST_S)).check_times(NOW), Ok(NOW));
        let early = listing(10, Some(-MAX_START_PAST_S - 1)).check_times(NOW);
        assert_eq!(early, Err(InvalidListing::StartsTooEarly { now: NOW }));
        assert_eq!(listing(0, None).check_times(NOW), Err(InvalidListing::EndsTooEarly { now: NOW }));
        assert_eq!(listing(5, Some(5)).check_times(NOW), Err(InvalidListing::EndsTooEarly { now: NOW }));
        assert_eq!(listing(-1, Some(-5)).check_times(NOW), Err(InvalidListing::EndsTooEarly { now: NOW }));
        let far = MAX_DURATION_DAYS * 86_400;
        assert!(listing(far, None).check_times(NOW).is_ok());
        assert_eq!(listing(far + 1, None).check_times(NOW), Err(InvalidListing::EndsTooLate { now: NOW }));
    }

    #[test]
    fn titles_and_prices_have_limits() {
        assert_eq!(listing(1, None).title, "A lamp");
        let new = |title: &str, price| Listing::new(title, "EUR", price, None, NOW);
        let length = |given| InvalidListing::Title(InvalidText::Length { given, most: MAX_TITLE_CHARS });
        assert_eq!(new("  ", 1).unwrap_err(), length(0));
        assert_eq!(new(&"x".repeat(201), 1).unwrap_err(), length(201));
        assert!(new("a\u{7}b", 1).unwrap_err().to_string().starts_with("title has U+0007"));
        assert_eq!(new("x", 0).unwrap_err(), InvalidListing::StartPrice(InvalidAmount { given: 0 }));
        let above = money::BID_CEILING_MINOR + 1;
        assert_eq!(new("x", above).unwrap_err(), InvalidListing::StartPriceAboveCeiling { given: above });
    }
}
