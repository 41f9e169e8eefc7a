//! Prometheus and Alertmanager beside the system, with the rules that a deployment has.
use crate::{
    install::{PROMETHEUS, ensure},
    progress::{Step, wait_until},
    servers::{Child, layout::Layout},
};
use std::{fs, net::TcpStream, path::PathBuf, process::Command, time::Duration};

/// What is copied from ops/observability.
const FILES: [&str; 4] = ["objectives.yml", "alerts.yml", "prometheus.yml", "alertmanager.yml"];

fn dir(layout: &Layout) -> PathBuf {
    layout.dir.join("observe")
}

/// Starts both, and waits until they listen.
pub(crate) fn start(layout: &Layout) -> anyhow::Result<Vec<Child>> {
    ensure(&[PROMETHEUS])?;
    let step = Step::begin("starting Prometheus and Alertmanager");
    let dir = dir(layout);
    fs::create_dir_all(dir.join("targets"))?;
    for file in FILES {
        fs::copy(crate::root().join("ops/observability").join(file), dir.join(file))?;
    }
    let services = [layout.service_ops_port()];
    let workers = [layout.worker_ops_port(), layout.backfills_ops_port()];
    let alertmanagers = [layout.alertmanager_port()];
    let jobs = [("gavel-service", &services[..]), ("gavel-worker", &workers), ("alertmanager", &alertmanagers)];
    for (job, ports) in jobs {
        let targets: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let text = serde_json::json!([{ "targets": targets }]).to_string();
        fs::write(dir.join("targets").join(format!("{job}.yml")), text)?;
    }
    let mut alertmanager = Command::new("prometheus-alertmanager");
    alertmanager.arg("--config.file=alertmanager.yml").arg("--storage.path=alertmanager");
    // By itself: no cluster of others is looked for.
    alertmanager.arg("--cluster.listen-address=");
    alertmanager.arg(format!("--web.listen-address=127.0.0.1:{}", layout.alertmanager_port()));
    let mut prometheus = Command::new("prometheus");
    prometheus.arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=prometheus");
    prometheus.arg(format!("--web.listen-address=127.0.0.1:{}", layout.prometheus_port()));
    let mut started = Vec::new();
    for (name, command, port) in [
        ("alertmanager", &mut alertmanager, layout.alertmanager_port()),
        ("prometheus", &mut prometheus, layout.prometheus_port()),
    ] {
        let mut child = Child::start(layout, name, "TERM", command.current_dir(&dir))?;
        let ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        wait_until(name, Duration::from_secs(30), || child.check(), ready)?;
        started.push(child);
    }
    step.done("Prometheus and Alertmanager started");
    Ok(started)
}

/// Says where they are.
pub(crate) fn greet(layout: &Layout) {
    let prometheus = format!("http://127.0.0.1:{}", layout.prometheus_port());
    // Debian's has the older pages alone.
    let is_there = |path: &&str| ureq::get(format!("{prometheus}{path}")).call().is_ok();
    let alerts = ["/alerts", "/classic/alerts"].into_iter().find(is_there).unwrap_or("/alerts");
    println!(
        "\nPrometheus is on {prometheus}, its alerts on {prometheus}{alerts}; Alertmanager answers on \
         http://127.0.0.1:{}\n(amtool, or its page where there is one). A dashboard for Grafana is in \
         ops/observability/dashboard.json.",
        layout.alertmanager_port(),
    );
}
