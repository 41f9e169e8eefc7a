//! One node, without containers: what runs in a pod is the program itself, with the pod's own environment, files, user
//! and address, asked by its own probes, ended by its own grace. Images are directories of programs.
use super::kubectl::Kubectl;
use crate::progress::run_quietly;
use anyhow::Context;
pub(super) use program::Image;
use program::Program;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

mod program;

const NAME: &str = "node-0";
/// Pods' addresses: all of them are this machine's, see [`Node::start`].
const NETWORK: &str = "10.77.0";
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// What looks after our pods.
const OURS: &str = "app.kubernetes.io/part-of=gavel";

/// Ends every program when dropped.
pub(crate) struct Node {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
    /// A file like /etc/hosts, with the headless Services of ready pods.
    pub(crate) hosts: PathBuf,
}

impl Node {
    /// Registers it, and runs what is scheduled on it. `dir` is for files of pods, and their logs.
    pub(crate) fn start(kubectl: &Kubectl, dir: &Path, images: Vec<Image>) -> anyhow::Result<Self> {
        // Every address of that network is the loopback's, so that each pod has one of its own.
        let mut ip = Command::new("ip");
        run_quietly(ip.args(["address", "replace", &format!("{NETWORK}.1/24"), "dev", "lo"]))?;
        let capacity = json!({ "cpu": "32", "memory": "64Gi", "pods": "200", "ephemeral-storage": "1Ti" });
        let labels =
            json!({ "kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "a" });
        kubectl.apply(&json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": NAME, "labels": labels },
            "status": {
                "capacity": capacity, "allocatable": capacity,
                "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "" }],
            },
        }))?;
        // Put there until somebody says that it is ready, whom this cluster doesn't have.
        kubectl.run(&["patch", "node", NAME, "--type", "merge", "--patch", r#"{"spec":{"taints":null}}"#])?;
        let hosts = dir.join("hosts");
        fs::create_dir_all(dir)?;
        fs::write(&hosts, "127.0.0.1 localhost\n")?;
        let stop = Arc::new(AtomicBool::new(false));
        let agent = Agent {
            kubectl: kubectl.clone(),
            dir: dir.to_owned(),
            hosts: hosts.clone(),
            images,
            pods: BTreeMap::new(),
            addresses: 1,
        };
        let thread = thread::spawn({
            let stop = stop.clone();
            move || agent.run(&stop)
        });
        Ok(Self { stop, thread: Some(thread), hosts })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = run_quietly(Command::new("ip").args(["address", "delete", &format!("{NETWORK}.1/24"), "dev", "lo"]));
    }
}

/// What runs in a pod, and how it is.
struct Pod {
    namespace: String,
    name: String,
    app: String,
    address: String,
    program: Program,
    is_started: bool,
    is_ready: bool,
    restarts: u32,
    asked_to_end: Option<Instant>,
    grace: Duration,
    last_probe: Instant,
}

struct Agent {
    kubectl: Kubectl,
    dir: PathBuf,
    hosts: PathBuf,
    images: Vec<Image>,
    /// By their uids.
    pods: BTreeMap<String, Pod>,
    addresses: u8,
}

impl Agent {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.look() {
                eprintln!("  ! the node: {error:#}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let found = self.kubectl.get(&["pods", "--all-namespaces", "--selector", OURS])?;
        let found: Vec<_> = found["items"].as_array().into_iter().flatten().collect();
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        for pod in &found {
            let is_over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            let is_ours = pod["spec"]["nodeName"] == NAME && !is_over;
            let is_going = pod["metadata"]["deletionTimestamp"].is_string();
            match self.pods.get_mut(&uid(pod)) {
                Some(known) if is_going => known.end(),
                None if is_ours && !is_going => self.begin(pod, uid(pod))?,
                None if is_going => {
                    self.forget(pod["metadata"]["namespace"].as_str(), pod["metadata"]["name"].as_str())?;
                }
                _ => {}
            }
        }
        // Deleted by force: nobody asks for its end any more.
        for (_, gone) in self.pods.extract_if(.., |known, _| !found.iter().any(|pod| uid(pod) == *known)) {
            drop(gone);
        }
        let over: Vec<_> = self.pods.keys().cloned().collect();
        for uid in over {
            self.attend(&uid)?;
        }
        self.write_hosts()
    }

    fn begin(&mut self, pod: &Value, uid: String) -> anyhow::Result<()> {
        self.addresses = self.addresses.wrapping_add(1).max(2);
        let address = format!("{NETWORK}.{}", self.addresses);
        let text = |at: &str| pod.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let program = Program::of(pod, &address, &self.kubectl, &self.images, &self.dir)?;
        let pod = Pod {
            app: pod["metadata"]["labels"]["app.kubernetes.io/name"].as_str().unwrap_or_default().to_owned(),
            grace: Duration::from_secs(pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30)),
            is_started: program.startup.is_none(),
            is_ready: false,
            restarts: 0,
            asked_to_end: None,
            last_probe: Instant::now(),
            namespace,
            name,
            address,
            program,
        };
        self.kubectl.patch_status(&["pod", &pod.name, "--namespace", &pod.namespace], &pod.status("Running"))?;
        self.pods.insert(uid, pod);
        Ok(())
    }

    /// What became of one since the last look.
    fn attend(&mut self, uid: &str) -> anyhow::Result<()> {
        let Some(pod) = self.pods.get_mut(uid) else { return Ok(()) };
        let at = ["pod".to_owned(), pod.name.clone(), "--namespace".to_owned(), pod.namespace.clone()];
        let at = at.each_ref().map(String::as_str);
        if let Some(status) = pod.program.ended()? {
            if pod.asked_to_end.is_some() {
                let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
                self.pods.remove(uid);
                return self.forget(Some(&namespace), Some(&name));
            }
            if !pod.program.is_kept_up {
                let phase = if status.success() { "Succeeded" } else { "Failed" };
                pod.is_ready = false;
                let status = pod.status(phase);
                self.pods.remove(uid);
                return self.kubectl.patch_status(&at, &status);
            }
            // Ended by itself: once more, by and by.
            pod.restarts += 1;
            (pod.is_ready, pod.is_started) = (false, pod.program.startup.is_none());
            pod.program.start_after(Duration::from_secs(1) * pod.restarts.min(10));
            return self.kubectl.patch_status(&at, &pod.status("Running"));
        }
        if pod.asked_to_end.is_some_and(|since| since.elapsed() > pod.grace) {
            eprintln!("  ! {} had to be killed after its grace", pod.name);
            pod.program.signal("KILL");
        }
        let was = (pod.is_started, pod.is_ready);
        pod.probe();
        if was == (pod.is_started, pod.is_ready) {
            return Ok(());
        }
        self.kubectl.patch_status(&at, &pod.status("Running"))
    }

    /// Nothing of it runs any more.
    fn forget(&self, namespace: Option<&str>, name: Option<&str>) -> anyhow::Result<()> {
        let (namespace, name) = (namespace.context("a namespace")?, name.context("a name")?);
        let at = ["delete", "pod", name, "--namespace", namespace];
        self.kubectl.run(&[&at[..], &["--grace-period", "0", "--force", "--ignore-not-found"]].concat()).map(drop)
    }

    fn write_hosts(&self) -> anyhow::Result<()> {
        let ready = self.pods.values().filter(|pod| pod.is_ready && pod.asked_to_end.is_none());
        let lines: Vec<_> = ready.map(|pod| format!("{} {}-ops.{}\n", pod.address, pod.app, pod.namespace)).collect();
        let text = format!("127.0.0.1 localhost\n{}", lines.concat());
        // In place: it is mounted elsewhere.
        if fs::read_to_string(&self.hosts)? != text {
            fs::write(&self.hosts, text)?;
        }
        Ok(())
    }
}

impl Pod {
    fn end(&mut self) {
        if self.asked_to_end.is_none() {
            self.asked_to_end = Some(Instant::now());
            self.program.signal("TERM");
        }
    }

    /// Asks as the pod's probes say, each in its own interval.
    fn probe(&mut self) {
        let probe = if self.is_started { &self.program.readiness } else { &self.program.startup };
        match probe {
            None => self.is_ready = self.is_started,
            Some(probe) if self.last_probe.elapsed() >= probe.period => {
                self.last_probe = Instant::now();
                let is_well = probe.is_well(&self.address);
                let asked = if self.is_started { &mut self.is_ready } else { &mut self.is_started };
                *asked = is_well;
            }
            Some(_) => {}
        }
    }

    fn status(&self, phase: &str) -> Value {
        let now = now();
        let is = |it: bool| if it { "True" } else { "False" };
        let condition = |kind: &str, it: bool| json!({ "type": kind, "status": is(it), "lastTransitionTime": now });
        let state = match phase {
            "Running" => json!({ "running": { "startedAt": now } }),
            "Succeeded" => json!({ "terminated": { "exitCode": 0, "reason": "Completed", "finishedAt": now } }),
            _ => json!({ "terminated": { "exitCode": 1, "reason": "Error", "finishedAt": now } }),
        };
        json!({
            "phase": phase, "podIP": self.address, "podIPs": [{ "ip": self.address }], "hostIP": format!("{NETWORK}.1"),
            "conditions": [
                condition("PodScheduled", true), condition("Initialized", true),
                condition("ContainersReady", self.is_ready), condition("Ready", self.is_ready),
            ],
            "containerStatuses": [{
                "name": self.program.container, "image": self.program.image, "imageID": self.program.image,
                "ready": self.is_ready, "started": self.is_started, "restartCount": self.restarts, "state": state,
            }],
        })
    }
}

fn now() -> String {
    let said = run_quietly(Command::new("date").args(["--utc", "+%FT%TZ"])).unwrap_or_default();
    said.trim().to_owned()
}
