//! The checkout that this program was built in, where we are inside of it.
use std::{env, fs, path::PathBuf};

/// Directories from here upwards that may be believed: whoever can write above another's directory could say anything
/// there, so only those count under whose `target` this program lies.
pub(crate) fn roots() -> Vec<PathBuf> {
    let Ok(here) = env::current_dir() else { return Vec::new() };
    let program = env::current_exe().and_then(fs::canonicalize).unwrap_or_default();
    let is_own = |dir: &PathBuf| fs::canonicalize(dir).is_ok_and(|dir| program.starts_with(dir.join("target")));
    here.ancestors().map(ToOwned::to_owned).filter(is_own).collect()
}
