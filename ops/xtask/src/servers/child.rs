//! A server process of ours: its log in a file, its pid in another, stopped when dropped.
use super::layout::Layout;
use crate::progress::run_quietly;
use anyhow::{Context, bail};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A process asked to stop is killed after this long.
const PATIENCE: Duration = Duration::from_secs(25);

pub(crate) struct Child {
    pub(crate) name: &'static str,
    process: std::process::Child,
    log: PathBuf,
    pid_file: PathBuf,
    stop_signal: &'static str,
    stopped: bool,
}

impl Child {
    /// Starts it in a process group of its own, so that the terminal's Ctrl-C reaches us alone and we stop it in order.
    pub(crate) fn start(
        layout: &Layout,
        name: &'static str,
        stop_signal: &'static str,
        command: &mut Command,
    ) -> anyhow::Result<Self> {
        let log = layout.log(name);
        // The log of the run before is kept beside it.
        let _ = fs::rename(&log, log.with_extension("log.1"));
        let file = fs::File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let process = command.spawn().with_context(|| format!("can't start {name}"))?;
        let pid_file = layout.pid_file(name);
        fs::write(&pid_file, process.id().to_string())?;
        Ok(Self { name, process, log, pid_file, stop_signal, stopped: false })
    }

    /// Fails with the end of its log when it is gone.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.process.try_wait()? else {
            return Ok(());
        };
        bail!("{} ended ({status}); the end of {}:\n{}", self.name, self.log.display(), self.log_tail());
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Asks it to stop and waits; kills it, and what it has started, when it does not.
    pub(crate) fn stop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let pid = self.process.id();
            signal(self.stop_signal, &pid.to_string());
            let until = Instant::now() + PATIENCE;
            while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < until {
                thread::sleep(Duration::from_millis(20));
            }
        }
        // And whatever it has started that is still there, also where it was killed itself.
        signal("KILL", &format!("-{}", self.process.id()));
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.pid_file);
        self.stopped = true;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.stopped {
            self.stop();
        }
    }
}

/// To a process, or with a minus before its id to its whole group.
fn signal(signal: &str, target: &str) {
    let _ = run_quietly(Command::new("kill").args([&format!("-{signal}"), "--", target]));
}

/// Stops what an earlier run of ours, killed in the middle, has left behind: our own processes before their servers. A pid
/// that meanwhile belongs to another program is recognised and left alone.
pub(crate) fn reap(layout: &Layout) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(&layout.dir)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "pid"));
    // bid-service and bid-worker come before postgres, rabbitmq and redis.
    files.sort();
    let mut reaped = Vec::new();
    for path in files {
        let pid: Option<u32> = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(pid) = pid.filter(|pid| is_ours(*pid, layout)) {
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
    let _ = run_quietly(Command::new("epmd").args(["-port", &layout.epmd_port().to_string(), "-kill"]));
    Ok(reaped)
}

fn is_ours(pid: u32, layout: &Layout) -> bool {
    // Servers run inside their set's directory, and some rewrite their command line.
    if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&layout.dir)) {
        return true;
    }
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let marks =
        [layout.dir.to_string_lossy().into_owned(), layout.id.clone(), format!("{}/target/", crate::root().display())];
    marks.iter().any(|mark| line.contains(mark))
}
