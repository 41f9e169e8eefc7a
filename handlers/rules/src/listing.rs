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
    /// The lowest first bid, in minor units.
    pub start_price_minor: i64,
    /// When bidding starts; none for at once.
    pub starts: Option<Moment>,
    /// When bidding ends.
    pub ends: Moment,
}

/// A moment as whoever asks for it says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Moment {
    /// By the calendar.
    At(DateTime<Utc>),
    /// So many microseconds from now, by the database's clock.
    InMicros(i64),
}

impl Moment {
    /// None where that is beyond every calendar.
    fn seen_from(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::At(at) => Some(at),
            Self::InMicros(micros) => now.checked_add_signed(TimeDelta::microseconds(micros)),
        }
    }
}

/// Bidding takes place from the first until just before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// When it starts.
    pub starts_at: DateTime<Utc>,
    /// When it ends.
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
    #[error("start_price_minor {} is out of range; allowed: 1 to {} minor units", .0.given, money::MAX_AMOUNT_MINOR)]
    StartPrice(#[from] InvalidAmount),
    /// No bid could reach the start price.
    #[error("start_price_minor {given} is above the highest bid taken; allowed: up to {ceiling_minor} minor units")]
    StartPriceAboveCeiling {
        /// In minor units.
        given: i64,
        /// The highest bid taken, in minor units.
        ceiling_minor: i64,
    },
    /// The start is past.
    #[error("starts_at or starts_in: the start is past (now is {}); allowed: from now on, or none for now", rfc_3339(*now))]
    StartsTooEarly {
        /// The database's clock.
        now: DateTime<Utc>,
    },
    /// The end does not come after the start, or is past.
    #[error("ends_at or ends_in: the end must come after the start and after now, which is {}", rfc_3339(*now))]
    EndsTooEarly {
        /// The database's clock.
        now: DateTime<Utc>,
    },
    /// The end is too far away.
    #[error("ends_at or ends_in: the end must come within {MAX_DURATION_DAYS} days from now, which is {}", rfc_3339(*now))]
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
        starts: Option<Moment>,
        ends: Moment,
    ) -> Result<Self, InvalidListing> {
        let title = shown_text(title, MAX_TITLE_CHARS)?;
        let start_price_minor = money::amount(start_price_minor)?;
        Ok(Self { title, currency: currency.parse()?, start_price_minor, starts, ends })
    }

    /// Checks that a bid could reach the start price, where the highest bid taken is that.
    pub const fn check_price(&self, ceiling_minor: i64) -> Result<(), InvalidListing> {
        if self.start_price_minor > ceiling_minor {
            return Err(InvalidListing::StartPriceAboveCeiling { given: self.start_price_minor, ceiling_minor });
        }
        Ok(())
    }

    /// Checks the times against `now`, the database's clock, and returns when bidding takes place.
    pub fn check_times(&self, now: DateTime<Utc>) -> Result<Period, InvalidListing> {
        let too_late = || InvalidListing::EndsTooLate { now };
        let asked = self.starts.map_or(Some(now), |starts| starts.seen_from(now)).ok_or_else(too_late)?;
        let ends_at = self.ends.seen_from(now).ok_or_else(too_late)?;
        if asked < now - TimeDelta::seconds(MAX_START_PAST_S) {
            return Err(InvalidListing::StartsTooEarly { now });
        }
        let starts_at = asked.max(now);
        if ends_at <= starts_at {
            return Err(InvalidListing::EndsTooEarly { now });
        }
        if ends_at > now + TimeDelta::days(MAX_DURATION_DAYS) {
            return Err(too_late());
        }
        Ok(Period { starts_at, ends_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn listing(ends_in_seconds: i64, starts_in_seconds: Option<i64>) -> Listing {
        let at = |seconds| Moment::At(NOW + TimeDelta::seconds(seconds));
        Listing::new(" A lamp ", "EUR", 100, starts_in_seconds.map(at), at(ends_in_seconds)).unwrap()
    }

    #[test]
    fn times_are_judged_against_the_given_clock() {
        let period = |from, until| {
            Ok(Period { starts_at: NOW + TimeDelta::seconds(from), ends_at: NOW + TimeDelta::seconds(until) })
        };
        assert_eq!(listing(10, None).check_times(NOW), period(0, 10));
        assert_eq!(listing(10, Some(5)).check_times(NOW), period(5, 10));
        assert_eq!(listing(10, Some(-MAX_START_PAST_S)).check_times(NOW), period(0, 10));
        let early = listing(10, Some(-MAX_START_PAST_S - 1)).check_times(NOW);
        assert_eq!(early, Err(InvalidListing::StartsTooEarly { now: NOW }));
        assert_eq!(listing(0, None).check_times(NOW), Err(InvalidListing::EndsTooEarly { now: NOW }));
        assert_eq!(listing(5, Some(5)).check_times(NOW), Err(InvalidListing::EndsTooEarly { now: NOW }));
        assert_eq!(listing(-1, Some(-5)).check_times(NOW), Err(InvalidListing::EndsTooEarly { now: NOW }));
        let relative = |starts, ends| Listing {
            starts: Some(Moment::InMicros(starts)),
            ends: Moment::InMicros(ends),
            ..listing(1, None)
        };
        assert_eq!(relative(5_000_000, 10_000_000).check_times(NOW), period(5, 10));
        assert_eq!(relative(0, i64::MAX).check_times(NOW), Err(InvalidListing::EndsTooLate { now: NOW }));
        let far = MAX_DURATION_DAYS * 86_400;
        assert!(listing(far, None).check_times(NOW).is_ok());
        assert_eq!(listing(far + 1, None).check_times(NOW), Err(InvalidListing::EndsTooLate { now: NOW }));
    }

    #[test]
    fn titles_and_prices_have_limits() {
        assert_eq!(listing(1, None).title, "A lamp");
        let new = |title: &str, price| Listing::new(title, "EUR", price, None, Moment::At(NOW));
        let length = |given| InvalidListing::Title(InvalidText::Length { given, most: MAX_TITLE_CHARS });
        assert_eq!(new("  ", 1).unwrap_err(), length(0));
        assert_eq!(new(&"x".repeat(201), 1).unwrap_err(), length(201));
        assert!(new("a\u{7}b", 1).unwrap_err().to_string().starts_with("title has U+0007"));
        assert_eq!(new("x", 0).unwrap_err(), InvalidListing::StartPrice(InvalidAmount { given: 0 }));
        let (given, ceiling_minor) = (1_001, 1_000);
        let refusal = InvalidListing::StartPriceAboveCeiling { given, ceiling_minor };
        assert_eq!(new("x", given).unwrap().check_price(ceiling_minor), Err(refusal));
        assert_eq!(new("x", ceiling_minor).unwrap().check_price(ceiling_minor), Ok(()));
    }
}
