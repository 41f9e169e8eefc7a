//! Whole numbers as ProtoJSON writes them: `100`, `"100"`, `1e2`, `100.0`. Read by their digits: a floating-point
//! number has only 53 bits, and would make `99.99999999999999999` a hundred.

/// The most digits of a whole number, and the largest exponent that could lead to one.
const MOST: usize = 40;

/// The digits of the whole number that is written there, with its sign; none where it is none.
pub(super) fn whole(text: &str) -> Option<String> {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
        None => (rest, 0),
    };
    let (before, after) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_canonical = before == "0" || (!before.starts_with('0') && !before.is_empty());
    if !is_canonical || !is_digits(before) || !is_digits(after) || before.len() + after.len() > MOST {
        return None;
    }
    let digits = shifted(&format!("{before}{after}"), exponent - i32::try_from(after.len()).ok()?)?;
    let digits = digits.trim_start_matches('0');
    Some(if digits.is_empty() { "0".to_owned() } else { format!("{sign}{digits}") })
}

fn read_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// The digits with the point moved; none where something would be left behind it.
fn shifted(digits: &str, by: i32) -> Option<String> {
    let places = usize::try_from(by.unsigned_abs()).ok()?;
    if digits.bytes().all(|digit| digit == b'0') {
        return Some("0".to_owned());
    }
    if by >= 0 {
        return (places <= MOST).then(|| format!("{digits}{}", "0".repeat(places)));
    }
    let (whole, rest) = digits.split_at_checked(digits.len().checked_sub(places)?)?;
    rest.bytes().all(|digit| digit == b'0').then(|| whole.to_owned())
}

#[cfg(test)]
mod tests {
    use super::whole;
    use proptest::prelude::*;

    #[test]
    fn what_is_a_whole_number_is_read_by_its_digits() {
        for (text, is) in [
            ("0", "0"),
            ("-0", "0"),
            ("100", "100"),
            ("1e2", "100"),
            ("1.1E3", "1100"),
            ("100.0", "100"),
            ("12000e-3", "12"),
            ("0e999", "0"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9.223372036854775808e18", "-9223372036854775808"),
        ] {
            assert_eq!(whole(text).as_deref(), Some(is), "{text}");
        }
        for text in [
            "",
            "-",
            "+1",
            "01",
            "1.",
            ".5",
            "1.5",
            "99.99999999999999999",
            "1e-1",
            "1e400",
            "1e",
            "1e99999",
            "0x1",
            "1_0",
            " 1",
            "NaN",
        ] {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_number_is_itself(number: i64, zeros in 0_usize..8) {
            prop_assert_eq!(whole(&number.to_string()), Some(number.to_string()));
            let padded = format!("{number}.{}0", "0".repeat(zeros));
            prop_assert_eq!(whole(&padded), Some(number.to_string()));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.eE]{0,60}") {
            let _ = whole(&text);
        }
    }
}
