//! What was built of other people's crates, for another checkout of this workspace.
use crate::progress::run_quietly;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// How names of this workspace's crates begin.
const OURS: [&str; 2] = ["gavel", "xtask"];
/// Files that one command links.
const AT_A_TIME: usize = 500;

/// Lends an empty target directory what was built here of other people's crates, not optimised. Not of ours: cargo knows
/// a crate of a workspace by where it is in it, and would take the one of this checkout for the other's. Files are
/// linked, and cargo writes none a second time.
///
/// # Errors
/// When they can't be linked: the directories are on two file systems.
pub(crate) fn lend(target: &Path) -> anyhow::Result<()> {
    let built =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from).join("debug");
    let lent = target.join("debug");
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
