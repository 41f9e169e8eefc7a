//! Whether an exercise is done: its tests, which nobody else runs, say so.
use super::chapter::Chapter;
use crate::{
    install::{self, NEXTEST},
    test::{Prepared, Services},
};
use anyhow::bail;
use std::process::Output;

/// What nextest ends with where a test failed, and not where it could not run:
/// <https://docs.rs/nextest-metadata/latest/nextest_metadata/enum.NextestExitCode.html>.
const TEST_RUN_FAILED: i32 = 100;

/// Looks at each, until one is not done.
pub(super) fn look(chapters: &[Chapter], services: Services) -> anyhow::Result<()> {
    install::everything()?;
    install::ensure(&[install::PROMETHEUS])?;
    let (nextest, prepared) = (NEXTEST.path()?, Prepared::on(services)?);
    for chapter in chapters {
        let mut run = prepared.command(&nextest);
        run.args(["nextest", "run", "--package", "gavel-tests", "--test", "it", "--run-ignored", "only"]);
        run.args(["--cargo-quiet", "--color", "never", "--no-fail-fast", "-E", &chapter.tests()]);
        let ran = run.env("RUST_BACKTRACE", "0").output()?;
        match ran.status.code() {
            Some(0) => println!("{}: done", chapter.title()),
            Some(TEST_RUN_FAILED) => {
                println!("{}: not yet", chapter.title());
                for line in missing(&ran) {
                    println!("  {line}");
                }
                bail!("the exercise is in {}", chapter.file());
            }
            _ => bail!("{}", said(&ran)),
        }
    }
    Ok(())
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// What a test's panic says.
fn missing(ran: &Output) -> Vec<String> {
    let said = said(ran);
    let told = said.lines().map(str::trim).skip_while(|line| !line.contains("panicked at")).skip(1);
    let told: Vec<_> =
        told.take_while(|line| !line.is_empty() && !line.starts_with("note:")).map(str::to_owned).collect();
    // Of two that should be the same, the reason comes first.
    told.iter().map(|line| line.strip_prefix("assertion `left == right` failed: ").unwrap_or(line).to_owned()).collect()
}
