//! Money: `i64` minor units beside an ISO 4217 code. Amounts of different currencies are never added.
use std::{fmt, str::FromStr};

/// The largest amount anything may have, in minor units: ten thousand million in a two-decimal currency.
pub const MAX_AMOUNT_MINOR: i64 = 1_000_000_000_000;

/// The highest bid that is taken while the ledger may still go back to an `integer` column, in minor units (20 million
/// in a two-decimal currency).
///
/// It lies below what such a column can hold, so that an amount too large for it is refused as a rule, with this number
/// in the answer, and never fails as a database error. Without such a column it is [`MAX_AMOUNT_MINOR`]: which of them
/// holds is an argument of the rules.
pub const BID_CEILING_MINOR: i64 = 2_000_000_000;

/// Minor units as people write them: `4.25 EUR`. Every currency Gavel lists has two decimals.
pub fn money(minor: i64, currency: &str) -> String {
    format!("{}.{:02} {currency}", minor / 100, minor % 100)
}

/// Currencies in which an item may be listed. All have two decimals, which is what the step ladder is made for.
const LISTED: [&str; 12] = ["AUD", "CAD", "CHF", "CZK", "DKK", "EUR", "GBP", "NOK", "NZD", "PLN", "SEK", "USD"];

/// An ISO 4217 code that Gavel lists items in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Currency(&'static str);

impl Currency {
    /// The three-letter code.
    pub const fn code(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The text is no currency Gavel lists items in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("currency {given:?} is not listed; allowed: {}", LISTED.join(", "))]
pub struct InvalidCurrency {
    /// What was given.
    pub given: String,
}

impl FromStr for Currency {
    type Err = InvalidCurrency;

    fn from_str(code: &str) -> Result<Self, InvalidCurrency> {
        let listed = LISTED.iter().find(|listed| **listed == code);
        listed.map(|code| Self(code)).ok_or_else(|| InvalidCurrency { given: code.chars().take(16).collect() })
    }
}

/// The number is no amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("amount {given} is out of range; allowed: 1 to {MAX_AMOUNT_MINOR} minor units")]
pub struct InvalidAmount {
    /// What was given.
    pub given: i64,
}

/// Checks that `minor` is an amount: 1 to [`MAX_AMOUNT_MINOR`].
pub const fn amount(minor: i64) -> Result<i64, InvalidAmount> {
    if minor >= 1 && minor <= MAX_AMOUNT_MINOR { Ok(minor) } else { Err(InvalidAmount { given: minor }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_fits_the_ledgers_column() {
        assert!(i32::try_from(BID_CEILING_MINOR).is_ok());
    }

    #[test]
    fn an_unlisted_currency_is_named_with_the_allowed_ones() {
        let error = "BTC".parse::<Currency>().unwrap_err();
        assert!(error.to_string().contains("\"BTC\"") && error.to_string().contains("EUR"));
        assert!("eur".parse::<Currency>().is_err(), "codes are upper case");
    }

    #[test]
    fn an_amount_is_shown_with_its_currency() {
        assert_eq!(money(425, "EUR"), "4.25 EUR");
        assert_eq!(money(BID_CEILING_MINOR, "CHF"), "20000000.00 CHF");
    }

    #[test]
    fn amounts_end_where_they_say() {
        assert_eq!(amount(0), Err(InvalidAmount { given: 0 }));
        assert_eq!(amount(1), Ok(1));
        assert_eq!(amount(MAX_AMOUNT_MINOR), Ok(MAX_AMOUNT_MINOR));
        assert!(amount(MAX_AMOUNT_MINOR + 1).is_err());
    }
}
