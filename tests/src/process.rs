//! One of Gavel's binaries, running.
use crate::eventually::{PATIENCE, eventually, eventually_within};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    str::FromStr,
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::Duration,
};

/// A process, with everything it has said so far. Killed when dropped.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<thread::JoinHandle<()>>,
    /// Where it listens, once it has said so.
    addresses: OnceLock<(String, String)>,
}

/// Where the binaries of this run are.
pub fn binary(name: &str) -> PathBuf {
    Path::new(&crate::servers::variable("GAVEL_TEST_BIN_DIR")).join(name)
}

impl Process {
    /// Starts it with exactly these variables.
    pub fn start(program: &Path, arguments: &[&str], variables: &[(String, String)]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(variables.iter().cloned());
        Self::spawn(command)
    }

    /// Starts that.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let readers = vec![
            collect(child.stdout.take().expect("stdout is piped"), lines.clone()),
            collect(child.stderr.take().expect("stderr is piped"), lines.clone()),
        ];
        Self { child, lines, readers, addresses: OnceLock::new() }
    }

    /// Everything it has printed.
    pub fn output(&self) -> Vec<String> {
        self.lines.lock().expect("no reader panics").clone()
    }

    /// Its log lines.
    pub fn log(&self) -> Vec<Value> {
        self.output().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it listens; returns the address of the public's calls, such as `127.0.0.1:4000`.
    pub async fn address(&self) -> String {
        self.listens("address").await
    }

    /// Waits until it listens; returns the address of operators' calls.
    pub async fn ops_address(&self) -> String {
        self.listens("ops_address").await
    }

    /// Where it listens, to the public and to operators, if it does by now.
    pub fn addresses(&self) -> Option<(String, String)> {
        if self.addresses.get().is_none() {
            let _ = self.addresses.set((self.said("address")?, self.said("ops_address")?));
        }
        self.addresses.get().cloned()
    }

    /// Returns whether it has said that it is ready.
    pub fn is_ready(&self) -> bool {
        self.said("ops_address").is_some()
    }

    fn said(&self, field: &str) -> Option<String> {
        let line = self.log().into_iter().find(|line| line["msg"] == "ready")?;
        Some(line[field].as_str()?.to_owned())
    }

    async fn listens(&self, field: &str) -> String {
        let ready = || async { self.said(field).ok_or_else(|| self.output()) };
        eventually("the process listens", ready, Result::is_ok).await.expect("it listens")
    }

    /// Its metrics, as Prometheus reads them.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.ops_address().await);
        reqwest::get(url).await.expect("answered").text().await.expect("text")
    }

    /// One figure of its metrics, of the first series with all of these labels, such as `outcome="ok"`.
    pub async fn figure<T: FromStr>(&self, name: &str, labels: &[&str]) -> Option<T> {
        let text = self.metrics().await;
        let wanted = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        text.lines().find(wanted)?.rsplit(' ').next()?.parse().ok()
    }

    /// Returns how many runs of the handler have begun and not ended, as its metrics say.
    pub async fn in_flight(&self, handler: &str, trigger: &str) -> usize {
        let labels = [format!("handler=\"{handler}\""), format!("trigger=\"{trigger}\"")];
        self.figure("gavel_handler_in_flight", &labels.each_ref().map(String::as_str)).await.unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether it has ended: it is a zombie until somebody waits for it.
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']) || rest.is_empty())
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("it can be waited for");
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal, such as STOP.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "the process is gone already");
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(PATIENCE).await
    }

    /// As [`Process::ended`], for one that has more to do than others.
    pub async fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let child = Mutex::new(&mut self.child);
        let look = || async { child.lock().expect("one waiter").try_wait().expect("it can be waited for") };
        let ended = eventually_within(patience, "the process ends", look, Option::is_some).await;
        let status = ended.expect("it ended");
        for reader in self.readers.drain(..) {
            reader.join().expect("no reader panics");
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let output = self.output();
            eprintln!("--- the last lines of process {}:", self.child.id());
            for line in &output[output.len().saturating_sub(40)..] {
                eprintln!("{line}");
            }
        }
    }
}

fn collect(from: impl std::io::Read + Send + 'static, into: Arc<Mutex<Vec<String>>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lock().expect("no reader panics").push(line);
        }
    })
}
