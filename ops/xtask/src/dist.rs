//! What is deployed: the released program, without what only a debugger reads, and a release for a machine of one's
//! own, with what installs it there.
use crate::{
    install::{BINUTILS, C_COMPILER, PROTOC, ensure},
    names::{NAMES, PROGRAM},
    progress::{Step, run_quietly},
    test::build_with,
};
use anyhow::{Context, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What a release has beside the program.
const ALSO: [&str; 5] = ["ops/vps", "ops/gateway/haproxy.cfg", "ops/observability", "ops/runbooks", "docs"];

/// Builds it into target/dist, with its debug information beside it, and a release of it.
pub(crate) fn run() -> anyhow::Result<()> {
    ensure(&[C_COMPILER, BINUTILS, PROTOC])?;
    let bins = build_with(&["--package", "gavel", "--bins"], true, &[("GAVEL_REVISION", &revision())])?;
    let dist = crate::root().join("target/dist");
    let step = Step::begin("taking debug information apart");
    strip(&bins, &dist)?;
    ensure!(says(&dist.join(PROGRAM), &revision())?, "the program does not say of which revision it is");
    let size = fs::metadata(dist.join(PROGRAM))?.len().div_ceil(1 << 20);
    let name = format!("gavel-{}-{}", env!("CARGO_PKG_VERSION"), revision());
    let release = pack(&dist, &dist.join(format!("{name}.tar.gz")), &name)?;
    step.done(format!("{PROGRAM}, {size} MiB, in {}; {}", dist.display(), release.display()));
    Ok(())
}

/// The checkout's, in short.
pub(crate) fn revision() -> String {
    let mut git = Command::new("git");
    let said = run_quietly(git.args(["rev-parse", "--short=10", "HEAD"]).current_dir(crate::root()));
    said.map_or_else(|_| "unknown".to_owned(), |said| said.trim().to_owned())
}

/// Takes debug information apart.
pub(crate) fn strip(bins: &Path, dist: &Path) -> anyhow::Result<()> {
    ensure(&[BINUTILS])?;
    run_quietly(Command::new(crate::root().join("ops/dist.sh")).arg(bins).arg(dist)).map(drop)
}

/// Returns whether a program has that text in it.
pub(crate) fn says(program: &Path, text: &str) -> anyhow::Result<bool> {
    let mut grep = Command::new("grep");
    let looked = grep.args(["--quiet", "--text", "--fixed-strings", text]).arg(program).status()?;
    match looked.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("grep can't look into {}", program.display()),
    }
}

/// What a program looks at that can have bugs on purpose.
const PLANTED: &str = "GAVEL_PLANTED";

/// A release of the program that lies there: `NAME/bin`, and what installs and deploys it.
///
/// # Errors
/// Also where it can have bugs on purpose.
pub(crate) fn pack(dist: &Path, release: &Path, name: &str) -> anyhow::Result<PathBuf> {
    ensure!(
        !says(&dist.join(PROGRAM), PLANTED)?,
        "{} was built with the feature planted: it can have bugs on purpose, and is no release",
        dist.join(PROGRAM).display()
    );
    let staged = dist.with_extension("staged");
    let _ = fs::remove_dir_all(&staged);
    let bin = staged.join(name).join("bin");
    fs::create_dir_all(&bin)?;
    // Links as links.
    let mut copy = Command::new("cp");
    copy.arg("--archive").args([PROGRAM].into_iter().chain(NAMES).map(|name| dist.join(name)));
    run_quietly(copy.arg(&bin))?;
    for also in ALSO {
        let to = staged.join(name).join(also);
        fs::create_dir_all(to.parent().context("a directory")?)?;
        run_quietly(Command::new("cp").arg("--recursive").arg(crate::root().join(also)).arg(&to))?;
    }
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--owner=0", "--group=0", "--file"]).arg(release).arg("--directory").arg(&staged);
    run_quietly(tar.arg(name))?;
    fs::remove_dir_all(staged)?;
    Ok(release.to_owned())
}
