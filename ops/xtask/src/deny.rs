//! What may be linked into Gavel: deny.toml says it.
use crate::{install::DENY, progress::run};
use anyhow::Context;
use std::{env, ffi::OsString, path::Path, process::Command};

/// A clone of RustSec's advisory-db, for networks where it can't be fetched.
const ADVISORIES: &str = "GAVEL_ADVISORIES";
const DATABASE: &str = "https://github.com/RustSec/advisory-db";

/// Licences, sources and bans always; known vulnerabilities where their database can be had. Gives what was left out.
pub(crate) fn deny() -> anyhow::Result<Option<&'static str>> {
    let deny = DENY.path()?;
    let clone = env::var_os(ADVISORIES).filter(|path| !path.is_empty());
    let found = |path: &OsString| {
        let path = Path::new(path);
        path.canonicalize().with_context(|| format!("{ADVISORIES}: {}", path.display()))
    };
    let clone = clone.as_ref().map(found).transpose()?;
    let command = |what: &[&str]| {
        let mut command = Command::new(&deny);
        command.arg("--workspace").args(what).current_dir(crate::root());
        if let Some(clone) = &clone {
            let instead = format!("url.file://{}.insteadOf", clone.display());
            command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", instead).env("GIT_CONFIG_VALUE_0", DATABASE);
        }
        command
    };
    run(&mut command(&["check", "bans", "licenses", "sources"]))?;
    // Somebody relies on a clone that is named: that it can't be read is a failure.
    if clone.is_some() || command(&["fetch", "db"]).output()?.status.success() {
        run(&mut command(&["check", "advisories"]))?;
        return Ok(None);
    }
    Ok(Some(
        "known vulnerabilities: their database can't be fetched from here; GAVEL_ADVISORIES=PATH names a clone of it",
    ))
}
