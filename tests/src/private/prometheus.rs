//! A Prometheus that reads a test's processes by the rules of `ops/observability`, more often than it would anywhere.
use super::Dir;
use crate::{Process, eventually, gateway::free_port};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

/// See the module. Ends when dropped.
pub struct Prometheus {
    url: String,
    _process: Process,
    _dir: Dir,
}

impl Prometheus {
    /// One that reads these, each a job with the addresses of its processes' operators' listeners.
    pub async fn start(jobs: &[(&str, Vec<String>)]) -> Self {
        let (dir, port) = (Dir::new("prometheus"), free_port().await);
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/observability");
        for file in ["objectives.yml", "alerts.yml", "prometheus.yml"] {
            let text = fs::read_to_string(from.join(file)).expect("the file");
            let text = text.replace("interval: 15s", "interval: 1s").replace("interval: 30s", "interval: 1s");
            fs::write(dir.0.join(file), text).expect("written");
        }
        fs::create_dir(dir.0.join("targets")).expect("made");
        for (job, addresses) in jobs {
            let targets = json!([{ "targets": addresses }]).to_string();
            fs::write(dir.0.join("targets").join(format!("{job}.yml")), targets).expect("written");
        }
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", dir.0.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.0.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let this = Self { url: format!("http://127.0.0.1:{port}"), _process: Process::spawn(command), _dir: dir };
        let ready = || async {
            reqwest::get(format!("{}/-/ready", this.url)).await.is_ok_and(|answer| answer.status().is_success())
        };
        eventually("Prometheus is ready", ready, |ready| *ready).await;
        this
    }

    /// The series that a query finds now.
    pub async fn series(&self, query: &str) -> Vec<Value> {
        let asked = reqwest::Client::new().get(format!("{}/api/v1/query", self.url)).query(&[("query", query)]);
        let answer: Value = asked.send().await.expect("answered").json().await.expect("JSON");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }
}
