//! Programs written in Go: others' suites and peers. Nothing that runs Gavel needs one.
use crate::progress::run_quietly;
use anyhow::Context;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Returns whether there is a toolchain. Where there is none, what needs it says that it was not run.
pub(crate) fn is_here() -> bool {
    Command::new("go").arg("version").output().is_ok_and(|output| output.status.success())
}

/// Where programs are put.
fn bin() -> PathBuf {
    crate::root().join("target/tools/go")
}

/// A program as `go install MODULE@VERSION` builds it, by the last part of the module's path; each version is built
/// once.
pub(crate) fn install(module: &str) -> anyhow::Result<PathBuf> {
    let (path, version) = module.split_once('@').context("MODULE@VERSION")?;
    let is_name = |part: &&str| !(part.starts_with('v') && part[1..].parse::<u32>().is_ok());
    let name = path.rsplit('/').find(is_name).unwrap_or(path);
    let bin = bin().join(format!("{name}-{version}"));
    let program = bin.join(name);
    if !program.exists() {
        run_quietly(Command::new("go").args(["install", module]).env("GOBIN", &bin))?;
    }
    Ok(program)
}

/// Where Go keeps a module, MODULE@VERSION, which is downloaded where it is not there yet.
pub(crate) fn module_dir(module: &str) -> anyhow::Result<PathBuf> {
    let mut go = Command::new("go");
    let said = run_quietly(go.args(["mod", "download", "-json", module]).current_dir(std::env::temp_dir()))?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    Ok(PathBuf::from(said["Dir"].as_str().with_context(|| format!("{module} has no directory"))?))
}

/// A program of this checkout.
pub(crate) fn build(name: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    let program = bin().join(name);
    run_quietly(Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(dir))?;
    Ok(program)
}
