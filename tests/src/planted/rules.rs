//! Rules are pure: a bug in them is built from a copy of their sources, in a workspace of that one crate.
use super::{Bug, Change};
use anyhow::{Context, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The crate, from the root.
const CRATE: &str = "handlers/rules";

/// Runs the rules' tests of that name on a copy that has the bug.
pub(super) fn run(root: &Path, bug: &Bug, test: &str) -> anyhow::Result<Output> {
    let copy = root.join("target/planted/rules");
    make(root, &copy)?;
    for change in bug.changes {
        let Change::Rule(file, said, instead) = change else { continue };
        let path = copy.join(CRATE).join("src").join(file);
        let source = fs::read_to_string(&path)?;
        ensure!(source.contains(said), "{file} has no {said:?}");
        fs::write(&path, source.replace(said, instead))?;
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--offline", "--quiet", "--lib", test]).current_dir(copy.join(CRATE));
    Ok(cargo.env("CARGO_TARGET_DIR", root.join("target/planted/of-rules")).output()?)
}

/// A workspace with the same versions of everything, and one member.
fn make(root: &Path, copy: &Path) -> anyhow::Result<()> {
    let _ = fs::remove_dir_all(copy);
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let line = |begin: &str| manifest.lines().find(|line| line.starts_with(begin)).context("the workspace's manifest");
    let manifest = manifest
        .replace(line("members = ")?, &format!("members = [{CRATE:?}]"))
        .replace(line("exclude = ")?, "exclude = []");
    copy_dir(&root.join(CRATE), &copy.join(CRATE))?;
    fs::write(copy.join("Cargo.toml"), manifest)?;
    fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock"))?;
    Ok(())
}

fn copy_dir(from: &Path, to: &PathBuf) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, to) =
            (entry.as_ref().map(fs::DirEntry::path).ok().context("an entry")?, to.join(entry?.file_name()));
        if path.is_dir() {
            copy_dir(&path, &to)?;
        } else {
            fs::copy(&path, &to)?;
        }
    }
    Ok(())
}
