//! Amounts as they are typed.

/// A whole number of minor units.
pub(crate) fn units(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| match text.split_once(['.', ',']) {
        Some((whole, part)) if part.len() == 2 && [whole, part].concat().parse::<i64>().is_ok() => {
            format!("allowed: whole minor units; {text} of a currency with two places is {whole}{part}")
        }
        _ => "allowed: whole minor units, such as 1500 for 15.00".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_types_a_fraction_is_told_what_was_meant() {
        assert_eq!(units("1500"), Ok(1_500));
        for (typed, told) in
            [("15.00", "is 1500"), ("300,50", "is 30050"), ("15.0", "such as 1500"), ("ten", "such as")]
        {
            let error = units(typed).expect_err("no whole number");
            assert!(error.contains(told), "{error}");
        }
    }
}
