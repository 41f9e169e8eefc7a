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

/// The parts of a name: `snake_case`, and of a type `CamelCase`, taken apart.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let is_constant = !name.contains(char::is_lowercase);
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && !is_constant) {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| c != '_') {
            part.push(c);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Whether a name has the word as a whole, or as some of its parts in a row.
fn has(name: &[String], word: &[String]) -> bool {
    name.windows(word.len()).any(|some| some == word)
}

#[test]
fn no_code_says_what_the_field_says_otherwise() {
    let old: Vec<_> = old_words().iter().map(|word| (word.clone(), parts(word))).collect();
    assert!(old.len() > 15, "docs/words.md lists them: {old:?}");
    let listed = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output().expect("git");
    let files = String::from_utf8(listed.stdout).expect("names");
    let mut found = Vec::new();
    // This one has them as examples.
    for file in files.lines().filter(|file| !file.ends_with("words.rs")) {
        let text = fs::read_to_string(root().join(file)).expect("text");
        for (number, line) in text.lines().enumerate() {
            // A proper name.
            let line = line.replace("GitLab", "");
            for name in code(&line).split(|c: char| !c.is_alphanumeric() && c != '_').map(parts) {
                let said = old.iter().filter(|(_, word)| has(&name, word)).map(|(word, _)| word);
                found.extend(said.map(|word| format!("{file}:{}: {word}", number + 1)));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The old words of sentences, in the second table.
fn old_phrases() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/words.md")).expect("docs/words.md");
    let rows = text.lines().filter(|line| line.starts_with("| \""));
    let old = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('"').skip(1).step_by(2));
    old.map(str::to_owned).collect()
}

#[test]
fn no_sentence_does_either() {
    let old = old_phrases();
    assert!(old.len() > 5, "docs/words.md lists them: {old:?}");
    let listed = Command::new("git").args(["ls-files", "*.rs", "*.md"]).current_dir(root()).output().expect("git");
    let files = String::from_utf8(listed.stdout).expect("names");
    let mut found = Vec::new();
    for file in
        files.lines().filter(|file| !["words.rs", "words.md", "CHANGELOG.md"].iter().any(|own| file.ends_with(own)))
    {
        let text = fs::read_to_string(root().join(file)).expect("text");
        for (number, line) in text.lines().enumerate() {
            // A field on the wire keeps its name.
            let line = line.replace("\"buried\"", "").replace(".buried", "").replace("buried: ", "");
            let words = line.replace(|c: char| !c.is_alphanumeric() && c != '_', " ").to_lowercase();
            let words = format!(" {} ", words.split_whitespace().collect::<Vec<_>>().join(" "));
            let is_said = |phrase: &&String| words.contains(&format!(" {phrase} "));
            found.extend(old.iter().filter(is_said).map(|phrase| format!("{file}:{}: {phrase}", number + 1)));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_word_is_found_within_a_name() {
    let has = |name: &str, word: &str| has(&parts(name), &parts(word));
    assert!(has("turned_away_ms", "turned_away") && has("LabReport", "Lab") && has("bury_next", "bury"));
    assert!(!has("Label", "Lab") && !has("label", "lab") && !has("away_turned", "turned_away"));
}
