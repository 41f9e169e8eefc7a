//! A real control plane's programs, and KEDA's, built from their Go modules: each version once, into target/tools/k8s.
use crate::{
    go,
    progress::{Step, run_quietly},
};
use anyhow::Context;
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const ETCD: &str = "v3.6.16";
/// Its parts have versions of their own: v0 for v1.
const KUBERNETES: &str = "v1.34.4";
const KEDA: &str = "v2.21.0";
/// Whose kinds the manifests use, without their programs.
const GATEWAY_API: &str = "v1.6.3";
const CERT_MANAGER: &str = "v1.19.1";
const PROMETHEUS_OPERATOR: &str = "v0.85.0";

/// Where they are.
pub(crate) struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Builds what is not there yet: twenty minutes of a processor, once.
    pub(crate) fn build() -> anyhow::Result<Self> {
        let programs = Self { dir: crate::root().join("target/tools/k8s") };
        fs::create_dir_all(programs.bin(""))?;
        programs.built("etcd", ETCD, &["etcd"], || programs.build_etcd())?;
        let names = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];
        programs.built("Kubernetes", KUBERNETES, &names, || programs.build_kubernetes(&names))?;
        let names = ["keda-operator", "keda-adapter", "keda-webhooks"];
        programs.built("KEDA", KEDA, &names, || programs.build_keda(&names))?;
        Ok(programs)
    }

    pub(crate) fn bin(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// KEDA's own manifests.
    pub(crate) fn keda_manifests(&self) -> PathBuf {
        self.source("keda").join("config")
    }

    fn source(&self, name: &str) -> PathBuf {
        self.dir.join("src").join(name)
    }

    /// A file beside each says of which version it is, written once it is whole.
    fn built(
        &self,
        what: &str,
        version: &str,
        names: &[&str],
        build: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let note = |name: &str| self.bin(&format!(".{name}"));
        let is_there = |name: &&str| {
            self.bin(name).exists() && fs::read_to_string(note(name)).is_ok_and(|text| text.trim() == version)
        };
        if names.iter().all(is_there) {
            return Ok(());
        }
        let step = Step::begin(format!("building {what} {version} (once)"));
        build()?;
        for name in names {
            fs::write(note(name), version)?;
        }
        step.done(format!("{what} built"));
        Ok(())
    }

    /// As a dependency: by itself its module could not be built, since what it replaces is in no published module.
    fn build_etcd(&self) -> anyhow::Result<()> {
        let dir = self.scratch("etcd")?;
        let module = "go.etcd.io/etcd/server/v3";
        let published = go::module_dir(&format!("{module}@{ETCD}"))?;
        write_module(&dir, &published, &format!("module scratch\n\ngo 1.26.0\n\nrequire {module} {ETCD}\n"))?;
        go_build(&dir, &self.bin("etcd"), "-s -w", &[module])
    }

    /// Its module replaces its parts by directories that are not published with it: here by the parts as published.
    fn build_kubernetes(&self, names: &[&str]) -> anyhow::Result<()> {
        let dir = self.scratch("kubernetes")?;
        let published = go::module_dir(&format!("k8s.io/kubernetes@{KUBERNETES}"))?;
        let theirs = fs::read_to_string(published.join("go.mod"))?;
        let parts = KUBERNETES.replacen("v1.", "v0.", 1);
        let mut module = "module scratch\n\n".to_owned();
        for line in theirs.lines().filter(|line| line.starts_with("go ") || line.starts_with("godebug ")) {
            writeln!(module, "{line}")?;
        }
        writeln!(module, "\nrequire k8s.io/kubernetes {KUBERNETES}\n")?;
        for line in theirs.lines().filter(|line| line.contains("=> ./staging/")) {
            let part = line.split_whitespace().find(|word| *word != "replace").context("a part's name")?;
            writeln!(module, "replace {part} => {part} {parts}")?;
        }
        write_module(&dir, &published, &module)?;
        // It must know its version: clients read the minor one.
        let mut flags = "-s -w".to_owned();
        let minor = KUBERNETES.split('.').nth(1).context("a minor version")?;
        for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
            write!(
                flags,
                " -X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
            )?;
        }
        let packages: Vec<_> = names.iter().map(|name| format!("k8s.io/kubernetes/cmd/{name}")).collect();
        go_build(&dir, &self.bin(""), &flags, &packages.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// As the main module: what it replaces and excludes counts.
    fn build_keda(&self, names: &[&str]) -> anyhow::Result<()> {
        let dir = self.scratch("keda")?;
        let published = go::module_dir(&format!("github.com/kedacore/keda/v2@{KEDA}"))?;
        run_quietly(Command::new("cp").arg("--recursive").arg("--no-target-directory").arg(&published).arg(&dir))?;
        run_quietly(Command::new("chmod").args(["--recursive", "u+w"]).arg(&dir))?;
        let version = KEDA.trim_start_matches('v');
        let flags = format!("-s -w -X github.com/kedacore/keda/v2/version.Version={version}");
        for name in names {
            let package = format!("./cmd/{}", name.trim_start_matches("keda-"));
            go_build(&dir, &self.bin(name), &flags, &[&package])?;
        }
        Ok(())
    }

    fn scratch(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.source(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

/// Files that define the kinds of others which the overlays use.
pub(super) fn definitions() -> anyhow::Result<Vec<PathBuf>> {
    let of = |module: &str, version: &str, dir: &str| -> anyhow::Result<PathBuf> {
        Ok(go::module_dir(&format!("{module}@{version}"))?.join(dir))
    };
    Ok(vec![
        of("sigs.k8s.io/gateway-api", GATEWAY_API, "config/crd/standard")?,
        of("github.com/cert-manager/cert-manager", CERT_MANAGER, "deploy/crds")?,
        of(
            "github.com/prometheus-operator/prometheus-operator",
            PROMETHEUS_OPERATOR,
            "example/prometheus-operator-crd",
        )?,
    ])
}

fn write_module(dir: &Path, published: &Path, module: &str) -> anyhow::Result<()> {
    fs::write(dir.join("go.mod"), module)?;
    // Not copied with its rights: it is completed.
    Ok(fs::write(dir.join("go.sum"), fs::read(published.join("go.sum"))?)?)
}

fn go_build(dir: &Path, out: &Path, flags: &str, packages: &[&str]) -> anyhow::Result<()> {
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-ldflags", flags, "-o"]).arg(out).args(packages).current_dir(dir);
    let settings =
        [("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local"), ("GOWORK", "off"), ("GOFLAGS", "-mod=mod -buildvcs=false")];
    run_quietly(go.envs(settings)).map(drop)
}
