//! A copy of this checkout in which all exercises are done: whoever follows the chapters gets there.
use super::{chapter::Chapter, shell::Shell};
use crate::{
    install::{self, NEXTEST},
    progress::{Step, run_quietly},
};
use anyhow::Context;
use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// Where it is, from the root.
const COPY: &str = "target/milestones/checkout";
/// What is built of others' crates is the same in both.
const BUILT: &str = "target/milestones/target";

/// How names of this workspace's crates begin.
const OURS: [&str; 2] = ["gavel", "xtask"];
/// Files that one command links.
const AT_A_TIME: usize = 500;

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
    share(&root)?;
    Ok(copy)
}

/// Lends it what was built here of other people's crates. Not of ours: cargo knows a crate of a workspace by where it is
/// in it, and would take the one of this checkout for the copy's. Files are linked, and cargo writes none a second time.
fn share(root: &Path) -> anyhow::Result<()> {
    let built = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("debug");
    let lent = root.join(BUILT).join("debug");
    if lent.exists() {
        return Ok(());
    }
    for room in ["deps", "build", ".fingerprint"] {
        fs::create_dir_all(lent.join(room))?;
        let all = fs::read_dir(built.join(room))?.map(|entry| entry.map(|entry| entry.path()));
        let all: Vec<_> = all.collect::<Result<_, _>>()?;
        let theirs = all.iter().filter(|path| is_of_others(path));
        for some in theirs.collect::<Vec<_>>().chunks(AT_A_TIME) {
            run_quietly(Command::new("cp").arg("-al").args(some).arg(lent.join(room)))?;
        }
    }
    Ok(())
}

/// A library, or what belongs to one, and none of this workspace.
fn is_of_others(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_ours = OURS.iter().any(|ours| name.trim_start_matches("lib").starts_with(ours));
    let is_library =
        path.extension().is_some_and(|kind| ["rlib", "rmeta", "so"].iter().any(|library| kind == *library));
    !is_ours && (is_library || path.is_dir())
}
