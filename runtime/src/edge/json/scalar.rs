//! Single values.
use super::number;
use base64::{
    Engine,
    alphabet::{Alphabet, STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chrono::{DateTime, Datelike, FixedOffset, Timelike};
use prost_reflect::{EnumDescriptor, Kind};

/// As protobuf has it: ten thousand years.
const LONGEST_DURATION_S: u64 = 315_576_000_000;

/// A value in a form that can't be misread.
pub(super) fn checked(raw: &str, kind: &Kind) -> Result<String, String> {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => whole::<i32>(raw, &i32::MIN, &i32::MAX),
        Kind::Uint32 | Kind::Fixed32 => whole::<u32>(raw, &0, &u32::MAX),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => whole::<i64>(raw, &i64::MIN, &i64::MAX),
        Kind::Uint64 | Kind::Fixed64 => whole::<u64>(raw, &0, &u64::MAX),
        Kind::Bool if matches!(raw, "true" | "false") => Ok(raw.to_owned()),
        Kind::Bool => Err(wrong(raw, "true or false")),
        Kind::String => text_of(raw).map(|_| raw.to_owned()).ok_or_else(|| wrong(raw, "a text")),
        Kind::Bytes => bytes(raw),
        Kind::Enum(of) => enumerated(raw, of),
        Kind::Float | Kind::Double => floating(raw),
        Kind::Message(_) => Err("allowed: an object".to_owned()),
    }
}

/// RFC 3339. A sixtieth second is not kept by anybody, and would become the one before.
pub(super) fn check_time(raw: &str) -> Result<(), String> {
    let text = text_of(raw);
    let time = text.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let is_written = text.as_deref().is_some_and(|text| {
        let fraction = text.split_once('.').map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
        text.as_bytes().get(10) == Some(&b'T') && !text.contains('z') && fraction <= 9
    });
    let is_kept =
        |time: DateTime<FixedOffset>| time.nanosecond() < 1_000_000_000 && (1..=9_999).contains(&time.to_utc().year());
    let allowed = "a time as RFC 3339 has it, of the years 1 to 9999, such as 2027-01-31T18:30:00Z";
    (is_written && time.is_some_and(is_kept)).then_some(()).ok_or_else(|| wrong(raw, allowed))
}

/// Seconds, with up to nine digits behind the point.
pub(super) fn check_duration(raw: &str) -> Result<(), String> {
    let text = text_of(raw);
    let is_duration = text.as_deref().and_then(|text| text.strip_suffix('s')).is_some_and(|seconds| {
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
        let is_fraction = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|digit| digit.is_ascii_digit());
        let digits = whole.strip_prefix('-').unwrap_or(whole);
        let is_whole =
            digits == "0" || (!digits.starts_with('0') && digits.parse().is_ok_and(|s: u64| s <= LONGEST_DURATION_S));
        is_whole && is_fraction && digits.bytes().all(|digit| digit.is_ascii_digit())
    });
    is_duration.then_some(()).ok_or_else(|| wrong(raw, "seconds, up to 315576000000, such as 90s or 1.5s"))
}

fn whole<T: std::str::FromStr + std::fmt::Display>(raw: &str, from: &T, to: &T) -> Result<String, String> {
    let text = text_of(raw).unwrap_or_else(|| raw.to_owned());
    let number = number::whole(&text).filter(|number| number.parse::<T>().is_ok());
    number.ok_or_else(|| wrong(raw, &format!("a whole number from {from} to {to}")))
}

fn floating(raw: &str) -> Result<String, String> {
    let text = text_of(raw).unwrap_or_else(|| raw.to_owned());
    let is_number = matches!(&*text, "NaN" | "Infinity" | "-Infinity") || serde_json::from_str::<f64>(&text).is_ok();
    is_number.then(|| raw.to_owned()).ok_or_else(|| wrong(raw, "a number"))
}

fn enumerated(raw: &str, of: &EnumDescriptor) -> Result<String, String> {
    let known = || of.values().map(|value| value.name().to_owned()).collect::<Vec<_>>().join(", ");
    match text_of(raw) {
        Some(name) if of.get_value_by_name(&name).is_some() => Ok(raw.to_owned()),
        None if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => whole::<i32>(raw, &i32::MIN, &i32::MAX),
        _ => Err(wrong(raw, &known())),
    }
}

/// Base64 of either alphabet, padded or not.
fn bytes(raw: &str) -> Result<String, String> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let reads = |alphabet: &Alphabet, text: &str| GeneralPurpose::new(alphabet, config).decode(text).is_ok();
    let is_base64 = text_of(raw).is_some_and(|text| reads(&STANDARD, &text) || reads(&URL_SAFE, &text));
    is_base64.then(|| raw.to_owned()).ok_or_else(|| wrong(raw, "bytes in Base64"))
}

fn text_of(raw: &str) -> Option<String> {
    raw.starts_with('"').then(|| serde_json::from_str(raw).ok())?
}

fn wrong(raw: &str, allowed: &str) -> String {
    let shown: String = raw.chars().take(64).collect();
    format!("is {shown}; allowed: {allowed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_read_as_they_are_written_or_not_at_all() {
        for good in ["\"2027-01-31T18:30:00Z\"", "\"2027-01-31T18:30:00.123456789+01:00\""] {
            assert_eq!(check_time(good), Ok(()), "{good}");
        }
        for bad in [
            "\"2027-01-31 18:30:00Z\"",
            "\"2027-01-31t18:30:00Z\"",
            "\"2027-01-31T18:30:00z\"",
            "\"2027-01-31T18:30:60Z\"",
            "\"0000-01-01T00:00:00Z\"",
            "\"2027-01-31T18:30:59.9999999999Z\"",
            "\"\"",
            "5",
        ] {
            assert!(check_time(bad).unwrap_err().contains("allowed"), "{bad}");
        }
        for good in ["\"90s\"", "\"0s\"", "\"315576000000s\"", "\"1.5s\"", "\"-1s\"", "\"1.123456789s\""] {
            assert_eq!(check_duration(good), Ok(()), "{good}");
        }
        for bad in [
            "\"0100s\"",
            "\"315576000001s\"",
            "\"1.9999999999s\"",
            "\"abc\"",
            "\"90\"",
            "\"1.s\"",
            "\"+1s\"",
            "\"1e3s\"",
            "90",
        ] {
            assert!(check_duration(bad).unwrap_err().contains("allowed"), "{bad}");
        }
    }
}
