//! What is deployed: the released binaries, each without what only a debugger reads.
use crate::{
    install::{BINUTILS, C_COMPILER, PROTOC, ensure},
    progress::{Step, run_quietly},
    test::build,
};
use std::{fs, process::Command};

/// Builds them into target/dist, with NAME.debug beside each.
pub(crate) fn run() -> anyhow::Result<()> {
    ensure(&[C_COMPILER, BINUTILS, PROTOC])?;
    let bins = build(&["--package", "gavel", "--bins"], true)?;
    let dist = crate::root().join("target/dist");
    let step = Step::begin("taking debug information apart");
    run_quietly(Command::new(crate::root().join("ops/dist.sh")).arg(&bins).arg(&dist))?;
    let mut sizes = Vec::new();
    for name in ["bid-service", "bid-worker", "bidctl"] {
        sizes.push(format!("{name} {} MiB", fs::metadata(dist.join(name))?.len().div_ceil(1 << 20)));
    }
    step.done(format!("{} in {}", sizes.join(", "), dist.display()));
    Ok(())
}
