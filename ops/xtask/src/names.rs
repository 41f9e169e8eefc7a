//! The one program of a release, and the names that it is called by: links to it, wherever it lies.
use std::{fs, io, os::unix::fs::symlink, path::Path};

pub(crate) const PROGRAM: &str = "gavel";
pub(crate) const NAMES: [&str; 3] = ["bid-service", "bid-worker", "bidctl"];

/// Links them in a directory, where it has the program.
pub(crate) fn link(dir: &Path) -> io::Result<()> {
    if !dir.join(PROGRAM).is_file() {
        return Ok(());
    }
    for name in NAMES {
        let path = dir.join(name);
        if fs::read_link(&path).is_ok_and(|to| to == Path::new(PROGRAM)) {
            continue;
        }
        // A program that was built by this name, before there was one for all of them.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(PROGRAM, &path)?,
        }
    }
    Ok(())
}
