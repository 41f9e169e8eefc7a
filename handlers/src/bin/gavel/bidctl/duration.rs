//! Durations as people write them.
use std::time::Duration;

/// The longest, in seconds: more than any auction may take, and less than anything overflows at.
const LONGEST_S: u64 = 3_650 * 86_400;

/// `90s`, `10m`, `1h30m`, `3d`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let refuse = || {
        format!("{text:?} is no duration; allowed: whole numbers with d, h, m or s, such as 10m or 1h30m, up to 3650d")
    };
    let (mut total, mut number, mut smallest) = (0_u64, String::new(), u64::MAX);
    for character in text.chars() {
        if character.is_ascii_digit() {
            number.push(character);
            continue;
        }
        let unit = match character {
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return Err(refuse()),
        };
        // Each unit once, from the largest to the smallest: anything else is a mistake.
        if unit >= smallest {
            return Err(refuse());
        }
        smallest = unit;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(refuse)?;
        total = total.checked_add(part).ok_or_else(refuse)?;
        number.clear();
    }
    if number.is_empty() && !text.is_empty() && total <= LONGEST_S {
        Ok(Duration::from_secs(total))
    } else {
        Err(refuse())
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn durations_are_what_they_say() {
        for (text, seconds) in
            [("90s", 90), ("10m", 600), ("1h30m", 5_400), ("3d", 259_200), ("1d2h3m4s", 93_784), ("0s", 0)]
        {
            assert_eq!(parse(text).unwrap().as_secs(), seconds, "{text}");
        }
        for bad in ["", "10", "m", "1m1h", "1h1h", "-1h", "1.5h", "99999999999999999s", "3651d", "1w", "１h", "1 h"] {
            assert!(parse(bad).unwrap_err().contains("allowed"), "{bad}");
        }
    }
}
