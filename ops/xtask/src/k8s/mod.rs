//! ops/k8s on a real API server with the real KEDA, where there is a Go toolchain to build them: applied strictly,
//! rolled out, rolled back, evicted and scaled. What runs in pods is real as well; kubelets, networks between pods,
//! cgroups and images are not.
mod build;
mod keys;
mod kubectl;
mod node;
mod overlays;
mod plane;
mod rollouts;
mod scaling;

use crate::{
    go,
    install::{C_COMPILER, OPENSSL, PROTOC, ensure, is_root},
    progress::Step,
    servers::{layout::Layout, processes::Processes},
    test::build,
};
use anyhow::{Context, bail};
use build::Programs;
use clap::Args;
use gavel_accounts::{
    Program,
    postgres::{Role, roles_sql},
};
use kubectl::Kubectl;
use node::{Image, Node};
use overlays::NAMESPACE;
use plane::Plane;
use serde_json::json;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// The database of the run.
const DATABASE: &str = "gavel";
/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_mins(5);

/// Run ops/k8s on a real control plane with the real KEDA (needs root and Go; builds both once).
#[derive(Args)]
pub(crate) struct K8s {
    /// Only write ops/k8s/rendered, from the overlays
    #[arg(long)]
    render: bool,
    /// Only see whether ops/k8s/rendered is of these sources, which needs neither
    #[arg(long, conflicts_with = "render")]
    check: bool,
}

impl K8s {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if self.check {
            return overlays::check_sources();
        }
        if !go::is_here() || !is_root() {
            bail!("it builds Kubernetes and KEDA: it needs a Go toolchain, and root; allowed without them: --check");
        }
        ensure(&[C_COMPILER, PROTOC, OPENSSL])?;
        let programs = Programs::build()?;
        if self.render {
            return overlays::render(&programs.bin("kubectl"));
        }
        overlays::check(&programs.bin("kubectl"))?;
        let bins = build(&["--package", "gavel", "--bins"], false)?;
        let servers = Processes::start(Layout::claim("k8s")?, false)?;
        let dir = servers.layout.dir.join("pods");
        let _ = fs::remove_dir_all(&dir);
        let images = images(&bins, &servers.layout.dir)?;
        let mut plane = Plane::start(programs)?;
        let node = Node::start(&plane.kubectl, &dir, images)?;
        plane.define()?;
        plane.start_keda(&node.hosts)?;
        let mut run = Run { kubectl: plane.kubectl.clone(), servers, plane, node, bins };
        overlays::apply_strictly(&run.kubectl)?;
        run.give_secrets()?;
        run.first_deploy()?;
        run.evict()?;
        run.roll()?;
        run.fail_and_go_back()?;
        run.keep_within_bounds()?;
        run.scale()
    }
}

/// A cluster with servers beside it.
struct Run {
    kubectl: Kubectl,
    // Ended in this order.
    node: Node,
    plane: Plane,
    servers: Processes,
    bins: PathBuf,
}

/// The same programs under two names, and some that end at once.
fn images(bins: &Path, dir: &Path) -> anyhow::Result<Vec<Image>> {
    let broken = dir.join("broken");
    fs::create_dir_all(&broken)?;
    for name in ["bid-service", "bid-worker"] {
        let program = broken.join(name);
        fs::write(&program, "#!/bin/sh\necho 'a version that does not start' >&2\nexit 1\n")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    fs::copy(bins.join("bidctl"), broken.join("bidctl"))?;
    let image = |tag: &str, bin: &Path| Image { name: format!("gavel:{tag}"), bin: bin.to_owned() };
    Ok(vec![image("one", bins), image("two", bins), image("broken", &broken)])
}

impl Run {
    /// As docs/operations.md tells: roles by an administrator, and what each program is told as a secret.
    fn give_secrets(&self) -> anyhow::Result<()> {
        let (urls, passwords) = (&self.servers.urls, &self.servers.passwords);
        let roles = self.servers.layout.dir.join("roles.sql");
        crate::servers::secrets::write_private(&roles, &roles_sql(DATABASE, &passwords.at_postgres()))?;
        self.bidctl(&["prepare", "--roles", &roles.display().to_string()], &urls.database(DATABASE))?;
        let keys = self.servers.layout.dir.join("keys");
        let _ = fs::remove_dir_all(&keys);
        self.bidctl(&["keygen", "--dir", &keys.display().to_string()], "")?;
        let public = fs::read_to_string(keys.join("jwt-public-key.pem"))?;
        let secret = |name: &str, data: &[(&str, String)]| {
            let data: serde_json::Map<_, _> =
                data.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": NAMESPACE },
                "stringData": data,
            })
        };
        let account = |name: &str, role: Role, program: Program| {
            let database = urls.database_of(role, passwords, DATABASE);
            let (amqp, redis) = (urls.amqp_of(program, passwords), urls.redis_of(program, passwords));
            secret(name, &[("database-url", database), ("amqp-url", amqp), ("redis-url", redis)])
        };
        self.kubectl.apply(&kubectl::list(&[
            account("gavel-service", Role::Service, Program::Service),
            account("gavel-worker", Role::Worker, Program::Worker),
            account("gavel-migrator", Role::Migrator, Program::Worker),
            secret("gavel-token-keys", &[("jwt-public-key.pem", public)]),
        ]))?;
        Ok(())
    }

    fn bidctl(&self, arguments: &[&str], database: &str) -> anyhow::Result<String> {
        let mut bidctl = Command::new(self.bins.join("bidctl"));
        bidctl.args(arguments);
        if !database.is_empty() {
            bidctl.env("DATABASE_URL", database);
        }
        crate::progress::run_quietly(&mut bidctl)
    }

    /// `ops/k8s/deploy` of the overlay that this run uses, with that image.
    fn deploy(&self, tag: &str, options: &[&str]) -> Command {
        let mut command = Command::new(crate::root().join("ops/k8s/deploy"));
        command.arg(overlays::of_this_run(&self.servers.layout.dir, tag)).args(options);
        command.envs(self.kubectl.environment().into_iter().flatten()).env("TIMEOUT", "120s");
        command
    }

    /// A Deployment's field as a number; zero where there is none.
    fn number(&self, deployment: &str, at: &str) -> anyhow::Result<i64> {
        let found = self.kubectl.get(&["deployment", deployment, "--namespace", NAMESPACE])?;
        Ok(found.pointer(at).and_then(serde_json::Value::as_i64).unwrap_or_default())
    }
}

/// Waits for something of the cluster.
fn eventually(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        // What can't be asked for the moment is asked again.
        let found = is_so();
        if matches!(found, Ok(true)) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > PATIENCE {
            return Err(found.err().unwrap_or_else(|| anyhow::anyhow!("never")).context(what.to_owned()));
        }
        thread::sleep(Duration::from_millis(300));
    }
}

/// A step that is checked, and what came of it.
fn step(what: &str, checked: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
    let step = Step::begin(what);
    let found = checked().with_context(|| what.to_owned())?;
    step.done(found);
    Ok(())
}
