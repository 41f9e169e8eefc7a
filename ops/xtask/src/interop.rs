//! What the interop tests need, clients that others have written: packages for Node.js and Python, installed into the
//! checkout.
use crate::{
    install::{NODE, PYTHON, ensure},
    progress::{Step, run, run_quietly},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

/// Installs what is missing or older than its list; gives the Python that has it.
pub(crate) fn prepare() -> anyhow::Result<PathBuf> {
    ensure(&[NODE, PYTHON])?;
    let root = crate::root();
    if is_older(&root.join("node_modules/.package-lock.json"), &root.join("package-lock.json")) {
        let step = Step::begin("installing the interop' packages for Node.js");
        run_quietly(npm().args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]))?;
        step.done("packages for Node.js installed");
    }
    let tools = root.join("target/tools/python");
    let (python, list) = (tools.join("bin/python"), root.join("tests/interop/requirements.txt"));
    if is_older(&tools.join("installed"), &list) {
        let step = Step::begin("installing the interop' packages for Python");
        run_quietly(Command::new("python3").args(["-m", "venv"]).arg(&tools))?;
        run_quietly(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&list))?;
        fs::write(tools.join("installed"), "")?;
        step.done("packages for Python installed");
    }
    Ok(python)
}

/// npm in this checkout.
pub(crate) fn npm() -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(crate::root());
    npm
}

/// Style of the contracts, what they may not break, and that the TypeScript client is what they say.
pub(crate) fn contracts() -> anyhow::Result<()> {
    prepare()?;
    for check in ["lint", "breaking"] {
        run(npm().args(["run", "--silent", check]))?;
    }
    let fresh = crate::root().join("target/contracts");
    run(npm().args(["run", "--silent", "generate", "--", "-o"]).arg(&fresh))?;
    let generated = Path::new("proto/ts/gen");
    let mut diff = Command::new("diff");
    run(diff.arg("-r").arg(fresh.join(generated)).arg(generated).current_dir(crate::root()))
}

fn is_older(made: &Path, from: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    !made.exists() || time(made) < time(from)
}
