//! Who someone is: the subject of their token.
use std::{fmt, str::FromStr};

/// A user's identifier: 1 to 64 of `a-z 0-9 . _ -`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct UserId(String);

impl UserId {
    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no user identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("user id {given:?} is invalid; allowed: 1 to 64 of a-z 0-9 . _ -, starting with a letter or digit")]
pub struct InvalidUserId {
    /// What was given, cut to 64 characters.
    pub given: String,
}

impl FromStr for UserId {
    type Err = InvalidUserId;

    fn from_str(text: &str) -> Result<Self, InvalidUserId> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let valid = text.len() <= 64
            && text.starts_with(plain)
            && text.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidUserId { given: text.chars().take(64).collect() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_pass() {
        for good in ["a", "alice", "user-7.b_c", "0x"] {
            assert_eq!(good.parse::<UserId>().unwrap().as_str(), good);
        }
        for bad in ["", "Alice", "-a", "a b", "ü", &"a".repeat(65)] {
            assert!(bad.parse::<UserId>().is_err(), "{bad:?}");
        }
    }
}
