//! Words of the field, in place of our own.
use std::{collections::BTreeSet, fs, path::Path, process::Command};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The old words of docs/words.md.
fn old_words() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/words.md")).expect("docs/words.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let old = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    old.map(str::to_owned).collect()
}

/// A line of code without its comment.
fn code(line: &str) -> &str {
    let begins = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    begins.map_or(line, |(at, _)| &line[..at])
}

#[test]
fn no_code_says_what_the_field_says_otherwise() {
    let old = old_words();
    assert!(old.len() > 15, "docs/words.md lists them: {old:?}");
    let listed = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output().expect("git");
    let files = String::from_utf8(listed.stdout).expect("names");
    let mut found = Vec::new();
    for file in files.lines() {
        let text = fs::read_to_string(root().join(file)).expect("text");
        for (number, line) in text.lines().enumerate() {
            let words = code(line).split(|c: char| !c.is_alphanumeric() && c != '_');
            found.extend(words.filter(|word| old.contains(*word)).map(|word| format!("{file}:{}: {word}", number + 1)));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
