//! What a site does, in a few words for a picture.
use super::case::Site;

/// So many things a statement does are named.
const NAMED: usize = 3;

/// Such as `lock items`, or the name of what is done.
pub(super) fn label(site: &Site, statement: Option<&str>) -> String {
    match statement {
        Some(text) => of_statement(text).unwrap_or_else(|| site.operation().to_owned()),
        None => site.operation().replace('_', " "),
    }
}

/// What it writes, or else what it locks or reads.
fn of_statement(text: &str) -> Option<String> {
    let words: Vec<_> = text.split_whitespace().map(|word| word.trim_start_matches('(')).collect();
    let mut done: Vec<String> = Vec::new();
    for (at, pair) in words.windows(2).enumerate() {
        let before = at.checked_sub(1).map_or("", |before| words[before]);
        let what = match *pair {
            ["INSERT", "INTO"] => words.get(at + 2).map(|table| format!("insert {}", bare(table))),
            ["DELETE", "FROM"] => words.get(at + 2).map(|table| format!("delete {}", bare(table))),
            ["UPDATE", table] if !["FOR", "DO"].contains(&before) => Some(format!("update {}", bare(table))),
            _ => None,
        };
        done.extend(what.filter(|what| !done.contains(what)));
    }
    if done.is_empty() {
        let locks = text.contains("FOR UPDATE") || text.contains("FOR NO KEY UPDATE");
        let tables = words.windows(2).filter(|pair| pair[0] == "FROM").map(|pair| bare(pair[1]));
        let table = tables.filter(|table| !table.is_empty()).find(|table| table.chars().all(is_name))?;
        return Some(format!("{} {table}", if locks { "lock" } else { "read" }));
    }
    done.truncate(NAMED);
    Some(done.join(", "))
}

fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !is_name(c))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_called_by_what_it_writes_or_locks_or_reads() {
        for (text, called) in [
            ("INSERT INTO bids (a) SELECT 1 ON CONFLICT DO UPDATE SET a = 1", "insert bids"),
            ("WITH p AS (INSERT INTO bids (a) VALUES (1)) UPDATE items SET a = 1", "insert bids, update items"),
            ("WITH l AS (SELECT a FROM items WHERE a ORDER BY a FOR UPDATE) SELECT a FROM l", "lock items"),
            ("SELECT a FROM items", "read items"),
        ] {
            assert_eq!(of_statement(text).as_deref(), Some(called));
        }
        assert_eq!(of_statement("SELECT clock_timestamp()"), None);
    }
}
