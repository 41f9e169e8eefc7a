//! The passwords of a set of private servers, made once and kept with their data: whoever else uses this machine knows
//! none.
use super::layout::Layout;
use anyhow::Context;
use gavel_accounts::{Passwords, password};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// The passwords of this set, the same at each server.
pub(crate) fn passwords(layout: &Layout) -> anyhow::Result<Passwords> {
    let dir = layout.dir.join("secrets");
    fs::create_dir_all(&dir)?;
    let kept = |account: &str| kept(&dir.join(account)).with_context(|| format!("no password for {account}"));
    Ok(Passwords {
        administrator: kept("administrator")?,
        service: kept("service")?,
        worker: kept("worker")?,
        migrator: kept("migrator")?,
        operator: kept("operator")?,
        reader: kept("reader")?,
    })
}

fn kept(file: &Path) -> anyhow::Result<String> {
    if let Ok(password) = fs::read_to_string(file) {
        return Ok(password.trim().to_owned());
    }
    let password = password();
    write_private(file, &password)?;
    Ok(password)
}

/// Writes a file that nobody but its owner reads.
pub(crate) fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    // Made anew: one that is there may be open to others.
    let _ = fs::remove_file(file);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    made.and_then(|mut made| made.write_all(text.as_bytes())).with_context(|| format!("can't write {}", file.display()))
}
