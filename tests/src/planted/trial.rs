//! One bug, and whether what should find it does.
use super::{Bug, Catch, Change, rules};
use gavel_runtime::boundary::planted::VARIABLE;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// What nextest ends with where a test failed, and not where it could not run:
/// <https://docs.rs/nextest-metadata/latest/nextest_metadata/enum.NextestExitCode.html>.
const TEST_RUN_FAILED: i32 = 100;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it was found, and for the reason that is meant.
    pub is_caught: bool,
    /// What was said.
    pub said: Vec<String>,
}

/// Plants a bug and runs what should find it. All that was said is in `target/planted/NAME.log`.
///
/// # Errors
/// When that can't be run.
pub fn run(root: &Path, bug: &Bug) -> anyhow::Result<Verdict> {
    let output = match bug.caught_by {
        Catch::Rule(test) => rules::run(root, bug, test)?,
        Catch::Test(test) => planted(bug, nextest(root, test)?)?,
        Catch::Case(case) => planted(bug, atlas(root, case)?)?,
    };
    let has_failed = match bug.caught_by {
        Catch::Test(_) => output.status.code() == Some(TEST_RUN_FAILED),
        Catch::Case(_) | Catch::Rule(_) => !output.status.success(),
    };
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    fs::write(root.join("target/planted").join(format!("{}.log", bug.name)), &text)?;
    Ok(Verdict { is_caught: has_failed && text.contains(bug.saying), said: telling(&text, bug) })
}

fn planted(bug: &Bug, mut command: Command) -> anyhow::Result<Output> {
    // A test's panic says where it is without one.
    command.env("RUST_BACKTRACE", "0");
    Ok(command.env(VARIABLE, serde_json::to_string(&bug.slips())?).output()?)
}

fn nextest(root: &Path, test: &str) -> anyhow::Result<Command> {
    let mut nextest = Command::new(std::env::var("GAVEL_TEST_NEXTEST")?);
    nextest.args(["nextest", "run", "--package", "gavel-tests", "--test", "it", "--no-fail-fast", "--color", "never"]);
    nextest.args(["--cargo-quiet", "-E", &format!("test(={test})")]).current_dir(root);
    Ok(nextest)
}

fn atlas(root: &Path, case: &str) -> anyhow::Result<Command> {
    let mut atlas = Command::new(std::env::current_exe()?.with_file_name("atlas"));
    atlas.args(case.split(' ')).current_dir(root);
    Ok(atlas)
}

/// Of all that was said, where it broke: the panic of a test, what a case found.
fn telling(text: &str, bug: &Bug) -> Vec<String> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let told: Vec<_> = match bug.caught_by {
        Catch::Case(_) => lines.into_iter().filter(|line| is_step(line) || is_invariant(line)).collect(),
        Catch::Test(_) | Catch::Rule(_) => {
            let at = lines.iter().position(|line| line.contains("panicked at"));
            let told = lines.into_iter().skip(at.unwrap_or_default());
            told.take_while(|line| !line.starts_with("stack backtrace") && !line.starts_with("note:")).take(6).collect()
        }
    };
    told.into_iter().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// `1. …`
fn is_step(line: &str) -> bool {
    line.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok())
}

/// `I1: …`
fn is_invariant(line: &str) -> bool {
    line.split_once(": ")
        .is_some_and(|(name, _)| name.strip_prefix('I').is_some_and(|number| number.parse::<u8>().is_ok()))
}

/// The story of a bug: what was forgotten, what is otherwise, what found it.
pub fn story(bug: &Bug, verdict: &Verdict) -> Vec<String> {
    let mut told = vec![format!("{}: somebody has not thought of this: {}.", bug.name, bug.forgotten)];
    for change in bug.changes {
        told.push(match change {
            Change::Said(said, instead) | Change::Rule(_, said, instead) => format!("- {said}\n+ {instead}"),
            Change::CommitBefore(text) => format!("+ COMMIT, before {text}"),
            Change::Autonomous(text) => format!("+ in a session of its own, and at once: {text}"),
            Change::ConfirmNotAwaited => "- await the broker's confirm".to_owned(),
            Change::TakenOnDelivery => "- acknowledge after the commit\n+ acknowledge on delivery".to_owned(),
        });
    }
    let by = match bug.caught_by {
        Catch::Test(test) => format!("the test {test}"),
        Catch::Case(case) => format!("the case cargo xtask atlas {case}"),
        Catch::Rule(test) => format!("the rules' tests {test}"),
    };
    let verb = if verdict.is_caught { "finds it" } else { "DOES NOT FIND IT" };
    told.push(format!("{by} {verb}:"));
    told.extend(verdict.said.iter().map(|line| format!("    {line}")));
    told
}
