//! The nevers: which crate may know which, and which folder may look into which.
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout")
}

/// The crates that `package` names as ordinary dependencies.
fn dependencies(package: &str) -> BTreeSet<String> {
    let cargo =
        Command::new("cargo").args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root()).output();
    let metadata: Value = serde_json::from_slice(&cargo.expect("cargo runs").stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let found = packages.iter().find(|p| p["name"] == package).unwrap_or_else(|| panic!("no package {package}"));
    let ordinary = found["dependencies"].as_array().expect("dependencies").iter().filter(|d| d["kind"].is_null());
    ordinary.map(|d| d["name"].as_str().expect("a name").to_owned()).collect()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn forbid(package: &str, forbidden: &[&str]) {
    let known = dependencies(package);
    for name in forbidden {
        assert!(!known.contains(*name), "{package} must not depend on {name}");
    }
}

#[test]
fn dependencies_point_one_way() {
    forbid("gavel-rules", &["tokio", "sqlx", "gavel-runtime", "gavel-proto", "gavel", "uuid", "rand"]);
    forbid("gavel-runtime", &["gavel-proto", "gavel", "gavel-rules"]);
    forbid("gavel-proto", &["gavel-runtime", "gavel", "gavel-rules", "sqlx"]);
    forbid("gavel-operators", &["gavel", "gavel-rules", "lapin", "redis"]);
    forbid("gavel", &["lapin", "redis", "gavel-tests"]);
    forbid("xtask", &["gavel", "gavel-runtime", "gavel-proto", "sqlx"]);
}

#[test]
fn neither_the_runtime_nor_what_operators_call_knows_an_auction_noun() {
    let nouns =
        ["auction", "auctions", "bid", "bids", "bidder", "item", "items", "seller", "hammer", "price", "bidctl"];
    let dirs = ["runtime/src", "handlers/operators/src"];
    for path in dirs.iter().flat_map(|dir| sources(&root().join(dir))) {
        let text = fs::read_to_string(&path).expect("text");
        for (index, line) in text.lines().enumerate() {
            // What iterators call what they give is no auction's item.
            let said =
                words(&line.replace("Iterator<Item", "")).into_iter().find(|word| nouns.contains(&word.as_str()));
            assert!(said.is_none(), "{}:{} says {said:?}", path.display(), index + 1);
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of a line, `CamelCase` taken apart.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in line.chars() {
        if !c.is_lowercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphabetic()) {
            word.push(c.to_ascii_lowercase());
        }
    }
    words
}

#[test]
fn use_cases_dont_import_each_other() {
    let src = root().join("handlers/src");
    let lib = fs::read_to_string(src.join("lib.rs")).expect("text");
    let use_cases: Vec<_> = fs::read_dir(&src)
        .expect("handlers")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| lib.contains(&format!("::<{name}::")))
        .collect();
    assert!(use_cases.len() >= 12, "use cases are folders that app() registers: {use_cases:?}");
    for one in &use_cases {
        for path in sources(&src.join(one)) {
            let text = fs::read_to_string(&path).expect("text");
            for other in use_cases.iter().filter(|other| *other != one) {
                let said = text.match_indices(&format!("{other}::")).any(|(at, _)| !text[..at].ends_with(is_word));
                assert!(!said, "{} imports {other}", path.display());
            }
        }
    }
}

#[test]
fn the_rules_read_no_clock_and_nothing_selects_everything() {
    for path in sources(&root().join("handlers/rules/src")) {
        let text = fs::read_to_string(&path).expect("text");
        for never in ["Utc::now", "SystemTime", "Instant::now", "async fn"] {
            assert!(!text.contains(never), "{} says {never}", path.display());
        }
    }
    for dir in ["handlers/src", "handlers/operators/src", "runtime/src"] {
        for path in sources(&root().join(dir)) {
            let text = fs::read_to_string(&path).expect("text").to_uppercase();
            assert!(!text.contains("SELECT *") && !text.contains("RETURNING *"), "{} selects all", path.display());
        }
    }
}

#[test]
fn queries_live_in_sql_files_and_files_stay_small() {
    let dirs = ["handlers/src", "handlers/operators/src"];
    for path in dirs.iter().flat_map(|dir| sources(&root().join(dir))) {
        let text = fs::read_to_string(&path).expect("text");
        let is_sql = path.file_name().is_some_and(|name| name == "sql.rs");
        assert!(is_sql || !text.contains("sqlx::query"), "{} has a query; allowed in sql.rs", path.display());
    }
    for dir in ["handlers", "runtime/src", "proto/src", "ops/xtask/src", "tests"] {
        for path in sources(&root().join(dir)) {
            let lines = fs::read_to_string(&path).expect("text").lines().count();
            assert!(lines <= 400, "{} has {lines} lines; allowed: 400", path.display());
        }
    }
}

#[test]
fn migrations_are_numbered_without_gaps() {
    let mut names: Vec<_> = fs::read_dir(root().join("migrations/expand"))
        .expect("migrations")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    for (index, name) in names.iter().enumerate() {
        assert!(name.starts_with(&format!("{:04}_", index + 1)), "{name} should be number {}", index + 1);
    }
}
