//! Looks over the files of changes before they land: squawk's rules, and Gavel's own.
use crate::bidctl::{checkout, output::Output, refused::Refused};
use anyhow::bail;
use gavel::schema::SOURCES;
use gavel_runtime::changes::{History, faults_of_expand};
use serde_json::{Value, json};
use sqlx::migrate::{Migration, Migrator};
use squawk_linter::{Linter, Rule};
use squawk_syntax::SourceFile;
use std::{fs, path::Path};

/// Changes up to this one had landed before anybody looked.
const EXEMPT: i64 = 25;
/// And before it was looked whether tables say what they are.
const WITHOUT_COMMENTS: i64 = 29;
/// Rules that contradict what is done here: `bidctl migrate` sets the time-outs, each file is run once, and types are
/// chosen.
const OTHERWISE: [Rule; 3] = [Rule::RequireTimeoutSettings, Rule::PreferRobustStmts, Rule::PreferBigintOverInt];
/// What a contract and a drop are there for.
const TAKES_AWAY: [Rule; 5] =
    [Rule::BanDropColumn, Rule::BanDropTable, Rule::BanDropNotNull, Rule::RenamingColumn, Rule::RenamingTable];
/// Where the recipes are.
const RECIPES: &str = "docs/schema-evolution.md";

/// What is wrong with a file.
struct Finding {
    file: String,
    line: usize,
    rule: String,
    what: String,
    recipe: &'static str,
}

pub(crate) fn run(output: Output) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    if let Err(error) = History::read(SOURCES) {
        let fault =
            |what: &String| finding("migrations", 0, "files-belong-together", what.clone(), "#what-the-headers-say");
        findings.extend(error.0.iter().map(fault));
    }
    let phases = [
        ("expand", SOURCES.expand),
        ("backfill", SOURCES.backfill),
        ("contract", SOURCES.contract),
        ("drop", SOURCES.drop),
    ];
    for (phase, file) in phases.iter().flat_map(|(phase, files)| files.iter().map(move |file| (*phase, file))) {
        if file.version > EXEMPT {
            findings.extend(look_at(phase, file));
        }
    }
    findings.extend(gaps());
    findings.extend(checkout::roots().iter().flat_map(|root| not_built_in(root, &phases)));
    let rows: Vec<_> = findings.iter().map(Finding::as_row).collect();
    let json = json!({ "findings": findings.iter().map(Finding::as_json).collect::<Vec<_>>() });
    output.table(&json, &["where", "rule", "what", "recipe"], &rows);
    if !findings.is_empty() {
        bail!(Refused { code: "failed_precondition".to_owned(), message: format!("{} findings", findings.len()) });
    }
    Ok(())
}

fn finding(file: &str, line: usize, rule: &str, what: impl Into<String>, recipe: &'static str) -> Finding {
    Finding { file: file.to_owned(), line, rule: rule.to_owned(), what: what.into(), recipe }
}

impl Finding {
    fn as_row(&self) -> Vec<String> {
        // Of all files together there is no line.
        let place = if self.line == 0 { self.file.clone() } else { format!("{}:{}", self.file, self.line) };
        vec![place, self.rule.clone(), self.what.clone(), format!("{RECIPES}{}", self.recipe)]
    }

    fn as_json(&self) -> Value {
        json!({ "file": self.file, "line": self.line, "rule": self.rule, "what": self.what,
                "recipe": format!("{RECIPES}{}", self.recipe) })
    }
}

/// Numbers that nobody has taken: two who work at the same time would take the same one for what is missing.
fn gaps() -> Vec<Finding> {
    let numbers = SOURCES.expand.iter().map(|migration| migration.version);
    let gaps = numbers.clone().zip(numbers.skip(1)).filter(|(one, next)| one + 1 < *next);
    let what = |(one, next)| {
        finding(&format!("migrations/expand/{next:04}"), 1, "gap", format!("after {one:04} comes {:04}", one + 1), "")
    };
    gaps.map(what).collect()
}

/// Files of the checkout that are not what this program has in it, which is all that it can look at.
fn not_built_in(root: &Path, phases: &[(&str, &Migrator)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (phase, built_in) in phases {
        let files = fs::read_dir(root.join("migrations").join(phase)).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|kind| kind == "sql")) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            if !built_in.iter().any(|migration| migration.sql == text) {
                let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                let what = "this program was built without it, as it is now: build it first (cargo build -p gavel)";
                findings.push(finding(&name, 1, "not-built-in", what, ""));
            }
        }
    }
    findings
}

fn look_at(phase: &str, migration: &Migration) -> Vec<Finding> {
    let name = format!("migrations/{phase}/{:04}_{}", migration.version, migration.description.replace(' ', "_"));
    let sql = migration.sql.as_ref();
    let mut findings = own(&name, phase, sql);
    if migration.version > WITHOUT_COMMENTS {
        findings.extend(untold(&name, sql));
    }
    findings.extend(squawks(&name, phase, sql));
    findings
}

/// Gavel's own rules.
fn own(name: &str, phase: &str, sql: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let code = without_comments(sql);
    let upper = code.to_uppercase();
    let mut say = |rule: &str, what: &str, recipe| findings.push(finding(name, 1, rule, what, recipe));
    if sql.contains("-- no-transaction") {
        let statements = code.split(';').filter(|statement| !statement.trim().is_empty()).count();
        if !sql.starts_with("-- no-transaction") || statements != 1 {
            say("no-transaction", "the file must begin with it and hold one statement", "#what-the-headers-say");
        }
    }
    if ["SELECT", "RETURNING"].iter().any(|word| upper.contains(&format!("{word} *"))) {
        say("select-everything", "it fails once a column is added", "#why-not-simply");
    }
    if upper.contains("LOCK_TIMEOUT") {
        say("lock-timeout", "whoever runs the file sets it", "#what-a-contract-wants-proved");
    }
    if phase == "expand" && [" DROP COLUMN", " RENAME ", "DROP TABLE"].iter().any(|word| upper.contains(word)) {
        say("expand-takes-away", "old programs still need it: a contract takes it away", "#drop-a-column");
    }
    let mut online = sql.lines().filter_map(|line| line.strip_prefix("-- online: ")).map(str::to_uppercase);
    if online.any(|statement| statement.contains(" INDEX ") && !statement.contains("CONCURRENTLY")) {
        say("online-index", "without CONCURRENTLY it stops every writer", "#what-the-headers-say");
    }
    if phase == "contract" && ["DROP TRIGGER", "DROP CONSTRAINT"].iter().any(|word| upper.contains(word)) {
        let why = "its revert, and the contract after that, need it: a drop takes it away";
        say("contract-drops", why, "#what-the-headers-say");
    }
    for fault in if phase == "expand" { faults_of_expand(sql) } else { Vec::new() } {
        say("header", &fault, "#what-the-headers-say");
    }
    for missing in if phase == "contract" { not_made(sql) } else { Vec::new() } {
        say("unknown-name", &format!("no expand makes {missing}"), "#what-the-headers-say");
    }
    for unnamed in unnamed(&upper) {
        say("unnamed-constraint", &format!("{unnamed} has no name"), "#what-the-headers-say");
    }
    findings
}

/// Constraints and meters that a contract's headers name, and no expand does.
fn not_made(sql: &str) -> Vec<&str> {
    let headers = sql.lines().filter_map(|line| line.strip_prefix("-- ")?.split_once(": "));
    let named = headers.filter_map(|(word, value)| match word {
        "valid" => value.trim().rsplit('.').next(),
        "meter" => Some(value.trim()),
        _ => None,
    });
    named.filter(|name| !SOURCES.expand.iter().any(|migration| migration.sql.contains(name))).collect()
}

/// Constraints without a name, by which a violation could be told from another.
fn unnamed(code: &str) -> Vec<&'static str> {
    let has_name = |at: usize| {
        let from = code[..at].rfind([',', ';', '(']).map_or(0, |before| before + 1);
        code[from..at].contains("CONSTRAINT ")
    };
    let kinds = ["CHECK (", "PRIMARY KEY", "UNIQUE (", "FOREIGN KEY"];
    let found = kinds.into_iter().filter(|kind| code.match_indices(kind).any(|(at, _)| !has_name(at)));
    found.map(|kind| kind.trim_end_matches(" (")).collect()
}

/// Tables that don't say what they are.
fn untold(name: &str, sql: &str) -> Vec<Finding> {
    let code = without_comments(sql);
    let tables = code.split("CREATE TABLE ").skip(1).filter_map(|rest| rest.split([' ', '(']).next());
    let untold = tables.filter(|table| !code.contains(&format!("COMMENT ON TABLE {table} ")));
    let what = |table| finding(name, 1, "no-comment", format!("table {table} has no comment"), "");
    untold.map(what).collect()
}

fn without_comments(sql: &str) -> String {
    sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Squawk's. A contract and a drop are meant to take away what everybody has let go of.
fn squawks(name: &str, phase: &str, sql: &str) -> Vec<Finding> {
    // A backfill's bounds are no SQL by themselves.
    let sql = sql.replace(":from", "'0'").replace(":upto", "'0'");
    let parsed = SourceFile::parse(&sql);
    let line = |offset: usize| sql[..offset.min(sql.len())].matches('\n').count() + 1;
    let mut findings: Vec<_> = parsed
        .errors()
        .iter()
        .map(|error| finding(name, line(usize::from(error.range().start())), "syntax", error.message(), ""))
        .collect();
    let mut linter = Linter::with_all_rules();
    linter.settings.assume_in_transaction = !sql.starts_with("-- no-transaction");
    linter.rules.retain(|rule| !OTHERWISE.contains(rule));
    if matches!(phase, "contract" | "drop") {
        linter.rules.retain(|rule| !TAKES_AWAY.contains(rule));
    }
    let violations = linter.lint(&parsed, &sql);
    findings.extend(violations.into_iter().map(|found| {
        let line = line(usize::from(found.text_range.start()));
        finding(name, line, &found.code.to_string(), found.message.clone(), recipe_for(found.code))
    }));
    findings
}

/// The recipe that does it well.
const fn recipe_for(rule: Rule) -> &'static str {
    match rule {
        Rule::ChangingColumnType => "#widen-a-primary-key",
        Rule::RenamingColumn | Rule::RenamingTable => "#rename-a-column",
        Rule::AddingNotNullableField | Rule::AddingRequiredField | Rule::AddingFieldWithDefault => {
            "#add-not-null-with-a-default"
        }
        Rule::DisallowedUniqueConstraint | Rule::RequireConcurrentIndexCreation => "#add-a-unique-constraint",
        Rule::AddingForeignKeyConstraint | Rule::ConstraintMissingNotValid => "#add-a-foreign-key",
        Rule::BanDropColumn | Rule::BanDropTable => "#drop-a-column",
        _ => "#recipes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_in_this_program_is_named() {
        let root = std::env::temp_dir().join(format!("gavel-lint-{}", std::process::id()));
        let expand = root.join("migrations/expand");
        fs::create_dir_all(&expand).expect("a directory");
        let known = SOURCES.expand.iter().next().expect("a migration");
        fs::write(expand.join("0001_known.sql"), known.sql.as_bytes()).expect("written");
        fs::write(expand.join("0099_add_something.sql"), "SELECT 1;").expect("written");
        let found = not_built_in(&root, &[("expand", SOURCES.expand)]);
        fs::remove_dir_all(&root).expect("removed");
        let found: Vec<_> = found.iter().map(|finding| (finding.file.as_str(), finding.rule.as_str())).collect();
        assert_eq!(found, [("migrations/expand/0099_add_something.sql", "not-built-in")]);
        assert_eq!(gaps().len(), 0);
    }

    fn rules(phase: &str, sql: &str) -> Vec<String> {
        let all = own("a", phase, sql).into_iter().chain(squawks("a", phase, sql));
        all.map(|finding| finding.rule).collect()
    }

    #[test]
    fn each_careless_statement_is_found_and_no_other() {
        for (rule, sql) in [
            ("changing-column-type", "ALTER TABLE bids ALTER COLUMN amount TYPE bigint;"),
            ("constraint-missing-not-valid", "ALTER TABLE bids ADD CONSTRAINT positive CHECK (amount > 0);"),
            ("require-concurrent-index-creation", "CREATE INDEX bids_amount_idx ON bids (amount);"),
            ("expand-takes-away", "ALTER TABLE bids DROP COLUMN amount;"),
            ("select-everything", &format!("CREATE VIEW all_bids AS SELECT {} FROM bids;", '*')),
            ("no-transaction", "-- An index.\n-- no-transaction\nCREATE INDEX CONCURRENTLY i ON bids (amount);"),
            ("header", "-- require: contract 27\nALTER TABLE bids ADD COLUMN n bigint;"),
            ("unnamed-constraint", "ALTER TABLE bids ADD CHECK (n > 0) NOT VALID;"),
            ("unnamed-constraint", "CREATE TABLE notes (id bigint PRIMARY KEY);"),
            ("lock-timeout", "SET lock_timeout = 0; ALTER TABLE bids ADD COLUMN n bigint;"),
        ] {
            let found = rules("expand", sql);
            assert!(found.iter().any(|found| found == rule), "{rule}: {found:?}");
        }
        let contract = "-- valid: bids.no_such_thing\n-- meter: bids_amount_minor_writes\nSELECT 1;";
        assert_eq!(not_made(contract), ["no_such_thing"]);
        let sound = "ALTER TABLE bids ADD COLUMN n bigint;\n\
                       ALTER TABLE bids ADD CONSTRAINT n_positive CHECK (n > 0) NOT VALID;";
        assert_eq!(rules("expand", sound), Vec::<String>::new());
        assert_eq!(untold("a", "CREATE TABLE notes (id bigint);").len(), 1);
        assert_eq!(untold("a", "CREATE TABLE notes (id bigint);\nCOMMENT ON TABLE notes IS 'Notes';").len(), 0);
        assert_eq!(rules("drop", "ALTER TABLE bids DROP COLUMN n;"), Vec::<String>::new());
        assert_eq!(rules("contract", "DROP TRIGGER bids_keep_n ON bids;"), ["contract-drops"]);
        let index = "-- online: CREATE INDEX n ON bids (n)\nUPDATE bids SET n = 1 WHERE bid_id BETWEEN 1 AND 2";
        assert!(rules("backfill", index).contains(&"online-index".to_owned()));
    }
}
