//! What is deployed: the released binaries, each without what only a debugger reads, and a release for a machine of
//! one's own, with what installs it there.
use crate::{
    install::{BINUTILS, C_COMPILER, PROTOC, ensure},
    progress::{Step, run_quietly},
    test::build,
};
use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const PROGRAMS: [&str; 3] = ["bid-service", "bid-worker", "bidctl"];
/// What a release has beside the programs.
const ALSO: [&str; 5] = ["ops/vps", "ops/gateway/haproxy.cfg", "ops/observability", "ops/runbooks", "docs"];

/// Builds them into target/dist, with NAME.debug beside each, and a release of them.
pub(crate) fn run() -> anyhow::Result<()> {
    ensure(&[C_COMPILER, BINUTILS, PROTOC])?;
    let bins = build(&["--package", "gavel", "--bins"], true)?;
    let dist = crate::root().join("target/dist");
    let step = Step::begin("taking debug information apart");
    strip(&bins, &dist)?;
    let mut sizes = Vec::new();
    for name in PROGRAMS {
        sizes.push(format!("{name} {} MiB", fs::metadata(dist.join(name))?.len().div_ceil(1 << 20)));
    }
    let name = format!("gavel-{}-{}", env!("CARGO_PKG_VERSION"), revision());
    let release = pack(&dist, &dist.join(format!("{name}.tar.gz")), &name)?;
    step.done(format!("{} in {}; {}", sizes.join(", "), dist.display(), release.display()));
    Ok(())
}

fn revision() -> String {
    let mut git = Command::new("git");
    let said = run_quietly(git.args(["rev-parse", "--short=10", "HEAD"]).current_dir(crate::root()));
    said.map_or_else(|_| "unknown".to_owned(), |said| said.trim().to_owned())
}

/// Takes debug information apart.
pub(crate) fn strip(bins: &Path, dist: &Path) -> anyhow::Result<()> {
    ensure(&[BINUTILS])?;
    run_quietly(Command::new(crate::root().join("ops/dist.sh")).arg(bins).arg(dist)).map(drop)
}

/// A release of those programs: `NAME/bin`, and what installs and deploys it.
pub(crate) fn pack(programs: &Path, release: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let staged = programs.with_extension("staged");
    let _ = fs::remove_dir_all(&staged);
    let bin = staged.join(name).join("bin");
    fs::create_dir_all(&bin)?;
    for program in PROGRAMS {
        fs::copy(programs.join(program), bin.join(program)).with_context(|| program.to_owned())?;
    }
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
