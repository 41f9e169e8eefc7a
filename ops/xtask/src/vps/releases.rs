//! What is put on the VPS.
use crate::dist;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Two that are the same but for their names, and one that does not start.
pub(super) fn pack(bins: &Path, dir: &Path) -> anyhow::Result<[PathBuf; 3]> {
    let stripped = dir.join("bin");
    dist::strip(bins, &stripped)?;
    let one = dist::pack(&stripped, &dir.join("gavel-one.tar.gz"), "gavel-one")?;
    let two = dist::pack(&stripped, &dir.join("gavel-two.tar.gz"), "gavel-two")?;
    let worker = stripped.join("bid-worker");
    fs::remove_file(&worker)?;
    fs::write(&worker, "#!/bin/sh\necho 'a version that does not start' >&2\nexit 1\n")?;
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755))?;
    let broken = dist::pack(&stripped, &dir.join("gavel-broken.tar.gz"), "gavel-broken")?;
    Ok([one, two, broken])
}
