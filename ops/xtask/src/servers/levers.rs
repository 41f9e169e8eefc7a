//! What somebody has at hand who makes faults of whole servers, beside their URLs.
use super::layout::Layout;
use crate::{
    install::is_root,
    progress::{Step, run_quietly},
};
use serde_json::json;
use std::{fs, path::PathBuf, process::Command};

/// For a database to be filled up in no time, and to have room for one that is busy for hours.
pub(crate) const SMALL_DISK_BYTES: u32 = 1 << 30;

/// What there is of it.
#[derive(Default)]
pub(crate) struct Levers {
    /// The words of RabbitMQ's command line, without what it is to do.
    pub(crate) rabbitmqctl: Option<Vec<String>>,
    /// Where PostgreSQL finds a file system that may be filled.
    pub(crate) small_disk: Option<String>,
}

impl Levers {
    /// As tests are told of them.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let words = self.rabbitmqctl.as_ref().map(|words| ("GAVEL_TEST_RABBITMQCTL", json!(words).to_string()));
        words.into_iter().chain(self.small_disk.clone().map(|dir| ("GAVEL_TEST_SMALL_DISK", dir))).collect()
    }
}

/// A file system of its own, in memory. Gone when dropped.
pub(crate) struct SmallDisk {
    pub(crate) dir: PathBuf,
}

impl SmallDisk {
    /// None where this user, or this machine, can't have one.
    pub(crate) fn mount(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let dir = layout.dir.join("small-disk");
        fs::create_dir_all(&dir)?;
        if !is_root() {
            return Ok(None);
        }
        // Of a run that was killed.
        let _ = run_quietly(Command::new("umount").arg(&dir));
        let step = Step::begin("mounting a small disk");
        let options = format!("size={SMALL_DISK_BYTES},mode=1777");
        let mounted = run_quietly(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&dir));
        step.done(if mounted.is_ok() { "small disk mounted" } else { "no small disk can be mounted" });
        Ok(mounted.is_ok().then_some(Self { dir }))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run_quietly(Command::new("umount").arg(&self.dir));
    }
}
