//! What a file says of itself: lines `-- word: value` before its first statement.
use std::time::Duration;

/// The lines of a file's header.
pub(super) struct Header<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Header<'a> {
    pub(super) fn of(sql: &'a str) -> Self {
        let comments = sql.lines().map(str::trim).take_while(|line| line.is_empty() || line.starts_with("--"));
        let said = comments.filter_map(|line| line.trim_start_matches('-').trim().split_once(": "));
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
        Self(said.filter(|(word, _)| is_word(word)).map(|(word, value)| (word, value.trim())).collect())
    }

    /// The value of a line that is there at most once.
    pub(super) fn one(&self, word: &str) -> Option<&'a str> {
        self.all(word).next()
    }

    /// The values of a line that may be there many times.
    pub(super) fn all<'w>(&self, word: &'w str) -> impl Iterator<Item = &'a str> + use<'_, 'a, 'w> {
        self.0.iter().filter(move |(found, _)| *found == word).map(|(_, value)| *value)
    }

    /// What is wrong with it: words that nobody knows, or that are there twice.
    pub(super) fn faults(&self, once: &[&str], often: &[&str]) -> Vec<String> {
        let mut faults = Vec::new();
        for (word, _) in &self.0 {
            let count = self.all(word).count();
            if !once.contains(word) && !often.contains(word) {
                let known = [once, often].concat();
                let allowed = if known.is_empty() { "no word".to_owned() } else { known.join(", ") };
                faults.push(format!("{word:?} is unknown in its header; allowed: {allowed}"));
            } else if once.contains(word) && count > 1 {
                faults.push(format!("{word:?} is there {count} times in its header; allowed: once"));
            }
        }
        faults.dedup();
        faults
    }
}

/// What is wrong with the header of an expand. Of those that have landed nothing can be changed, so this is for whoever
/// looks over what has not.
pub fn faults_of_expand(sql: &str) -> Vec<String> {
    Header::of(sql).faults(&[], &["requires"])
}

/// `150ms`, `30s`, `10m` or `24h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_secs(count.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(count.checked_mul(3_600)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_stands_before_the_first_statement() {
        let header =
            Header::of("-- A sentence: not a word.\n-- table: parts\n-- online: ANALYZE parts\n\nSELECT 1;\n-- key: x");
        assert_eq!(header.one("table"), Some("parts"));
        assert_eq!(header.one("key"), None);
        assert_eq!(header.faults(&["table"], &["online"]), Vec::<String>::new());
        assert_eq!(header.faults(&["table"], &[]).len(), 1);
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("150ms"), Some(Duration::from_millis(150)));
        assert_eq!(duration("24h"), Some(Duration::from_hours(24)));
        assert_eq!((duration("10"), duration("m"), duration("10d")), (None, None, None));
    }
}
