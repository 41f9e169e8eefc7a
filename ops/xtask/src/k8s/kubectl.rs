//! `kubectl`, as an administrator of the cluster.
use crate::progress::run_quietly;
use anyhow::Context;
use serde_json::{Value, json};
use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

#[derive(Clone)]
pub(crate) struct Kubectl {
    pub(super) program: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) cache: PathBuf,
}

impl Kubectl {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache);
        command
    }

    /// Runs it with these words, and returns what it says.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run_quietly(self.command().args(arguments))
    }

    /// What `get` says of objects.
    pub(crate) fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.run(&[&["get"], arguments, &["--output", "json"]].concat())?)?)
    }

    /// Applies objects as they stand here.
    pub(crate) fn apply(&self, objects: &Value) -> anyhow::Result<String> {
        self.apply_text(&objects.to_string(), &["--force-conflicts"])
    }

    /// Applies what is in a file's text, with such flags.
    pub(crate) fn apply_text(&self, text: &str, flags: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(["apply", "--server-side"]).args(flags).args(["--filename", "-"]);
        piped(&mut command, text)
    }

    /// Changes an object's status, as its controller does.
    pub(crate) fn patch_status(&self, object: &[&str], status: &Value) -> anyhow::Result<()> {
        let patch = json!({ "status": status }).to_string();
        self.run(&[&["patch"], object, &["--subresource", "status", "--type", "merge", "--patch", &patch]].concat())
            .map(drop)
    }

    /// Variables with which scripts find the cluster, and this program by its name.
    pub(crate) fn environment(&self) -> anyhow::Result<[(&'static str, String); 2]> {
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.program.parent().context("a directory")?.display().to_string();
        Ok([("KUBECONFIG", self.kubeconfig.display().to_string()), ("PATH", format!("{bin}:{path}"))])
    }
}

/// Several objects as one.
pub(crate) fn list(items: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// Runs a command that is told something.
pub(crate) fn piped(command: &mut Command, text: &str) -> anyhow::Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("its input is piped")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    anyhow::ensure!(output.status.success(), "{}: {}", output.status, said(&output.stderr));
    Ok(said(&output.stdout))
}
