//! What an earlier run has left behind.
use super::signal::{PATIENCE, signal};
use crate::progress::run_quietly;
use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// A set of servers, as it is told from others.
pub(super) struct Set<'a> {
    pub(super) dir: &'a Path,
    pub(super) id: &'a str,
    pub(super) epmd_port: u16,
}

/// Stops what an earlier run of ours, killed in the middle, has left behind: our own processes before their servers. A
/// pid that meanwhile belongs to another program is recognised and left alone.
pub(super) fn reap(set: &Set<'_>) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(set.dir)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "pid"));
    // bid-service and bid-worker come before postgres, rabbitmq and redis.
    files.sort();
    let mut reaped = Vec::new();
    for path in files {
        let pid: Option<u32> = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(pid) = pid.filter(|pid| is_ours(*pid, set)) {
            // SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for its clients.
            signal(if name == "postgres" { "INT" } else { "TERM" }, &pid.to_string());
            let until = Instant::now() + PATIENCE;
            while Path::new(&format!("/proc/{pid}")).exists() && Instant::now() < until {
                thread::sleep(Duration::from_millis(50));
            }
            signal("KILL", &format!("-{pid}"));
            reaped.push(name);
        }
        fs::remove_file(&path)?;
    }
    // RabbitMQ's port mapper puts itself in the background; this one is the set's own.
    let _ = run_quietly(Command::new("epmd").args(["-port", &set.epmd_port.to_string(), "-kill"]));
    Ok(reaped)
}

fn is_ours(pid: u32, set: &Set<'_>) -> bool {
    // Servers run inside their set's directory, and some rewrite their command line.
    if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(set.dir)) {
        return true;
    }
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let marks =
        [set.dir.to_string_lossy().into_owned(), set.id.to_owned(), format!("{}/target/", crate::root().display())];
    marks.iter().any(|mark| line.contains(mark))
}
