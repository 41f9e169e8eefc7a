//! A real control plane as plain processes: etcd, Kubernetes' API server, controllers and scheduler, and KEDA. There is
//! no kubelet: what runs in pods is `node.rs`'s.
use super::{
    build::{self, Programs},
    keys::Keys,
    kubectl::{Kubectl, list},
};
use crate::{
    progress::{Step, run_quietly, wait_until},
    servers::{
        Child,
        layout::{Claimed, Layout},
    },
};
use anyhow::Context;
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command, time::Duration};

const PATIENCE: Duration = Duration::from_mins(2);

/// Stops what it started, in this order, when dropped.
pub(crate) struct Plane {
    keda: Vec<Child>,
    _kubernetes: Vec<Child>,
    programs: Programs,
    keys: Keys,
    pub(crate) kubectl: Kubectl,
    layout: Claimed,
}

/// Ports, by their places in the layout.
enum Port {
    Etcd,
    EtcdPeer,
    Api,
    Controllers,
    Scheduler,
    OperatorMetricsService,
    OperatorMetrics,
    OperatorHealth,
    Adapter,
    AdapterMetrics,
    Webhooks,
    WebhooksMetrics,
    WebhooksHealth,
}

fn port(layout: &Layout, of: Port) -> u16 {
    layout.port(of as u16)
}

fn local(layout: &Layout, of: Port) -> String {
    format!("127.0.0.1:{}", port(layout, of))
}

impl Plane {
    /// Starts an empty cluster.
    pub(crate) fn start(programs: Programs) -> anyhow::Result<Self> {
        let layout = Layout::claim("k8s-plane")?;
        for old in ["pki", "etcd"] {
            let _ = fs::remove_dir_all(layout.dir.join(old));
        }
        let step = Step::begin("starting a Kubernetes control plane");
        let keys = Keys::make(&layout.dir)?;
        let kubeconfig = keys.client("admin", port(&layout, Port::Api))?;
        let kubectl = Kubectl { program: programs.bin("kubectl"), kubeconfig, cache: layout.dir.join("cache") };
        let kubernetes = start_kubernetes(&layout, &programs, &keys, &kubectl)?;
        step.done("etcd, API server, controllers and scheduler are up");
        Ok(Self { keda: Vec::new(), _kubernetes: kubernetes, programs, keys, kubectl, layout })
    }

    /// The kinds of others that the overlays use.
    pub(crate) fn define(&self) -> anyhow::Result<()> {
        for path in build::definitions()? {
            let path = path.display().to_string();
            self.kubectl.run(&["apply", "--server-side", "--filename", &path])?;
        }
        Ok(())
    }

    /// Installs KEDA by its own manifests, and runs its programs with the rights of its own service account. Names of
    /// Services are looked up in `hosts`.
    pub(crate) fn start_keda(&mut self, hosts: &Path) -> anyhow::Result<()> {
        let step = Step::begin("starting KEDA");
        let from = self.programs.keda_manifests();
        let at = |path: &str| from.join(path).display().to_string();
        self.kubectl.run(&["apply", "--server-side", "--filename", &at("general/namespace.yaml")])?;
        self.kubectl.run(&["apply", "--server-side", "--kustomize", &at("crd")])?;
        let is_known =
            || self.kubectl.run(&["get", "scaledobjects.keda.sh,triggerauthentications.keda.sh", "-A"]).is_ok();
        wait_until("KEDA's kinds", PATIENCE, || Ok(()), is_known)?;
        for rights in [
            "service_account/service_account",
            "rbac/role",
            "rbac/role_binding",
            "metrics-server/role",
            "metrics-server/role_binding",
        ] {
            self.kubectl.run(&["apply", "--server-side", "--filename", &at(&format!("{rights}.yaml"))])?;
        }
        let token =
            self.kubectl.run(&["create", "token", "keda-operator", "--namespace", "keda", "--duration", "720h"])?;
        let api = port(&self.layout, Port::Api);
        self.keys.kubeconfig("keda", api, &json!({ "token": token.trim() }))?;
        self.start_operator(hosts)?;
        self.start_others()?;
        self.register_keda(&at("webhooks/validation_webhooks.yaml"))?;
        step.done("KEDA is up");
        Ok(())
    }

    fn keda_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.keys.file("keda.kubeconfig"));
        // What a pod would read of itself.
        command.env("POD_NAMESPACE", "keda").env("KEDA_CLUSTER_OBJECT_NAMESPACE", "keda").env("WATCH_NAMESPACE", "");
        command
    }

    /// In a mount namespace of its own, where /etc/hosts is the cluster's names.
    fn start_operator(&mut self, hosts: &Path) -> anyhow::Result<()> {
        let layout = &self.layout;
        let mut command = self.keda_command(Path::new("unshare"));
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
        command.arg(self.programs.bin("keda-operator"));
        command.args(["--cert-dir", &self.keys.file("keda"), "--enable-cert-rotation=false", "--zap-encoder=console"]);
        command.arg(format!("--metrics-service-bind-address={}", local(layout, Port::OperatorMetricsService)));
        command.arg(format!("--metrics-bind-address={}", local(layout, Port::OperatorMetrics)));
        command.arg(format!("--health-probe-bind-address={}", local(layout, Port::OperatorHealth)));
        let mut child = Child::start(layout, "keda-operator", "TERM", &mut command)?;
        let health = format!("http://{}/readyz", local(layout, Port::OperatorHealth));
        wait_until("KEDA's operator", PATIENCE, || child.check(), || ureq::get(&health).call().is_ok())?;
        self.keda.push(child);
        Ok(())
    }

    /// Ends KEDA's operator as a node that fails would, and starts it again.
    pub(crate) fn restart_operator(&mut self, hosts: &Path) -> anyhow::Result<()> {
        let at = self.keda.iter().position(|child| child.name == "keda-operator").context("KEDA is up")?;
        drop(self.keda.remove(at));
        self.start_operator(hosts)
    }

    fn start_others(&mut self) -> anyhow::Result<()> {
        let layout = &self.layout;
        let kubeconfig = self.keys.file("keda.kubeconfig");
        let mut adapter = self.keda_command(&self.programs.bin("keda-adapter"));
        for flag in ["lister-kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            adapter.arg(format!("--{flag}={kubeconfig}"));
        }
        adapter.args(["--cert-dir", &self.keys.file("keda"), "--client-ca-file", &self.keys.file("ca.crt")]);
        adapter.args(["--tls-cert-file", &self.keys.file("keda/tls.crt")]);
        adapter.args(["--tls-private-key-file", &self.keys.file("keda/tls.key"), "--bind-address", "127.0.0.1"]);
        adapter.arg(format!("--secure-port={}", port(layout, Port::Adapter)));
        adapter.arg(format!("--port={}", port(layout, Port::AdapterMetrics)));
        adapter.arg(format!("--metrics-service-address={}", local(layout, Port::OperatorMetricsService)));
        let mut webhooks = self.keda_command(&self.programs.bin("keda-webhooks"));
        webhooks.args(["--cert-dir", &self.keys.file("keda"), "--zap-encoder=console"]);
        webhooks.arg(format!("--port={}", port(layout, Port::Webhooks)));
        webhooks.arg(format!("--metrics-bind-address={}", local(layout, Port::WebhooksMetrics)));
        webhooks.arg(format!("--health-probe-bind-address={}", local(layout, Port::WebhooksHealth)));
        let adapter = Child::start(layout, "keda-adapter", "TERM", &mut adapter)?;
        let webhooks = Child::start(layout, "keda-webhooks", "TERM", &mut webhooks)?;
        self.keda.extend([adapter, webhooks]);
        Ok(())
    }

    /// Lets the API server find the adapter and the webhooks. A Service may lead to localhost by name; by address it may
    /// not.
    fn register_keda(&self, webhooks: &str) -> anyhow::Result<()> {
        let bundle = run_quietly(Command::new("base64").args(["--wrap=0", &self.keys.file("ca.crt")]))?;
        let service = |name: &str| {
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "keda" },
                "spec": { "type": "ExternalName", "externalName": "localhost" },
            })
        };
        let adapter =
            json!({ "name": "keda-metrics-apiserver", "namespace": "keda", "port": port(&self.layout, Port::Adapter) });
        self.kubectl.apply(&list(&[
            service("keda-metrics-apiserver"),
            service("keda-admission-webhooks"),
            json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": { "name": "v1beta1.external.metrics.k8s.io" },
                "spec": {
                    "service": adapter, "group": "external.metrics.k8s.io", "version": "v1beta1",
                    "groupPriorityMinimum": 100, "versionPriority": 100, "caBundle": bundle,
                },
            }),
        ]))?;
        let served = || self.kubectl.run(&["get", "--raw", "/apis/external.metrics.k8s.io/v1beta1"]).is_ok();
        wait_until("KEDA's metrics", PATIENCE, || Ok(()), served)?;
        let mut theirs = serde_json::from_str::<Value>(&self.kubectl.run(&[
            "create",
            "--dry-run=client",
            "--output",
            "json",
            "--filename",
            webhooks,
        ])?)?;
        for webhook in theirs["webhooks"].as_array_mut().into_iter().flatten() {
            webhook["clientConfig"]["caBundle"] = json!(bundle);
            webhook["clientConfig"]["service"]["port"] = json!(port(&self.layout, Port::Webhooks));
        }
        self.kubectl.apply(&theirs).map(drop)
    }
}

fn start_kubernetes(
    layout: &Layout,
    programs: &Programs,
    keys: &Keys,
    kubectl: &Kubectl,
) -> anyhow::Result<Vec<Child>> {
    let etcd_url = format!("http://{}", local(layout, Port::Etcd));
    let peer_url = format!("http://{}", local(layout, Port::EtcdPeer));
    let mut etcd = Command::new(programs.bin("etcd"));
    etcd.args(["--name", "local", "--unsafe-no-fsync", "--log-level", "warn", "--data-dir"])
        .arg(layout.dir.join("etcd"));
    etcd.args(["--listen-client-urls", &etcd_url, "--advertise-client-urls", &etcd_url]);
    etcd.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
    etcd.args(["--initial-cluster", &format!("local={peer_url}")]);
    let mut started = vec![Child::start(layout, "etcd", "TERM", &mut etcd)?];
    let mut api = Command::new(programs.bin("kube-apiserver"));
    api.args(["--etcd-servers", &etcd_url, "--bind-address", "127.0.0.1"]);
    api.arg(format!("--secure-port={}", port(layout, Port::Api)));
    // An address to advertise must be given, and nothing uses it.
    api.args(["--advertise-address", "10.96.255.254", "--endpoint-reconciler-type", "none"]);
    api.args(["--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "RBAC", "--allow-privileged"]);
    api.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
    api.args(["--requestheader-allowed-names", "front-proxy", "--requestheader-username-headers", "X-Remote-User"]);
    api.args([
        "--requestheader-group-headers",
        "X-Remote-Group",
        "--requestheader-extra-headers-prefix",
        "X-Remote-Extra-",
    ]);
    for (flag, file) in [
        ("tls-cert-file", "server.crt"),
        ("tls-private-key-file", "server.key"),
        ("client-ca-file", "ca.crt"),
        ("service-account-key-file", "service-account.pub"),
        ("service-account-signing-key-file", "service-account.key"),
        ("requestheader-client-ca-file", "front-ca.crt"),
        ("proxy-client-cert-file", "front.crt"),
        ("proxy-client-key-file", "front.key"),
    ] {
        api.arg(format!("--{flag}={}", keys.file(file)));
    }
    let mut api = Child::start(layout, "kube-apiserver", "TERM", &mut api)?;
    wait_until("the API server", PATIENCE, || api.check(), || kubectl.run(&["get", "--raw", "/readyz"]).is_ok())?;
    // Before etcd: it waits for it.
    started.insert(0, api);
    for (name, of) in [("kube-controller-manager", Port::Controllers), ("kube-scheduler", Port::Scheduler)] {
        let kubeconfig = keys.client(name, port(layout, Port::Api))?.display().to_string();
        let mut command = Command::new(programs.bin(name));
        command.args(["--bind-address", "127.0.0.1", "--leader-elect=false"]);
        command.arg(format!("--secure-port={}", port(layout, of)));
        for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            command.arg(format!("--{flag}={kubeconfig}"));
        }
        if name == "kube-controller-manager" {
            // Who looks after nodes would find that ours sends no heartbeats.
            command.arg("--controllers=*,-node-lifecycle-controller,-taint-eviction-controller");
            command.args(["--horizontal-pod-autoscaler-sync-period", "5s", "--use-service-account-credentials"]);
            for (flag, file) in [
                ("service-account-private-key-file", "service-account.key"),
                ("root-ca-file", "ca.crt"),
                ("cluster-signing-cert-file", "ca.crt"),
                ("cluster-signing-key-file", "ca.key"),
            ] {
                command.arg(format!("--{flag}={}", keys.file(file)));
            }
        }
        started.insert(0, Child::start(layout, name, "TERM", &mut command)?);
    }
    Ok(started)
}
