//! A copy of this checkout in which all exercises are done: whoever follows the chapters gets there.
use super::{chapter::Chapter, shell::Shell};
use crate::{
    install::{self, NEXTEST},
    lend::lend,
    progress::{Step, run_quietly},
};
use anyhow::Context;
use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

/// Where it is, from the root.
const COPY: &str = "target/milestones/checkout";
/// What is built of others' crates is the same in both.
const BUILT: &str = "target/milestones/target";

/// What the last checkpoint says there otherwise than the chapters do.
pub(super) fn check(chapters: &[Chapter], variables: &[(&str, String)]) -> anyhow::Result<Vec<String>> {
    install::ensure(&[install::PROMETHEUS])?;
    // It has the same tools.
    NEXTEST.path()?;
    let step = Step::begin("all exercises, done in a copy of this checkout");
    let (copy, last) = (make(chapters)?, chapters.last().context("a chapter")?);
    let target = crate::root().join(BUILT).display().to_string();
    let variables: Vec<_> = variables.iter().cloned().chain([("CARGO_TARGET_DIR", target)]).collect();
    let (printed, is_well) = Shell::open(&copy, &variables)?.run(&last.checkpoint())?;
    step.done(last.checkpoint());
    let mut wrong = Vec::new();
    if !is_well || printed != last.done {
        wrong.push(format!("with docs/milestones/solutions, {} says\n{}", last.checkpoint(), printed.join("\n")));
    }
    let differs = |chapter: &&Chapter| !last.done.starts_with(&chapter.done);
    wrong.extend(
        chapters
            .iter()
            .filter(differs)
            .map(|chapter| format!("{}: its checkpoint does not say {}", chapter.file(), chapter.done.join("\n"))),
    );
    Ok(wrong)
}

fn make(chapters: &[Chapter]) -> anyhow::Result<PathBuf> {
    let (root, copy) = (crate::root(), crate::root().join(COPY));
    let _ = fs::remove_dir_all(&copy);
    let mut list = Command::new("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(&root);
    for name in run_quietly(&mut list)?.lines().filter(|name| root.join(name).is_file()) {
        let to = copy.join(name);
        fs::create_dir_all(to.parent().context("a directory")?)?;
        fs::copy(root.join(name), to)?;
    }
    for chapter in chapters {
        let mut apply = Command::new("git");
        apply.arg("apply").arg(format!("--directory={COPY}")).arg(chapter.solution()).current_dir(&root);
        run_quietly(&mut apply).with_context(|| format!("the solution of {}", chapter.file()))?;
    }
    fs::create_dir_all(copy.join("target"))?;
    symlink(root.join("target/tools"), copy.join("target/tools"))?;
    lend(&root.join(BUILT))?;
    Ok(copy)
}
