//! A server process of ours: its log in a file, its pid in another, stopped when dropped.
use super::{
    layout::Layout,
    signal::{PATIENCE, signal},
};
use anyhow::{Context, bail};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

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
