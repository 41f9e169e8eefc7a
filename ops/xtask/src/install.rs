//! Installs what is missing from the distribution's packages. Asks for nothing when root.
use crate::progress::{Step, run_quietly};
use anyhow::{Context, bail};
pub(crate) use gavel_programs::{is_root, on_path, postgresql_bin};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Something needed: how to see that it is there, and the packages that bring it.
pub(crate) struct Need {
    what: &'static str,
    found: fn() -> bool,
    packages: &'static [&'static str],
}

pub(crate) const PROTOC: Need = Need {
    what: "protoc",
    found: || on_path("protoc").is_some() && Path::new("/usr/include/google/protobuf/timestamp.proto").exists(),
    packages: &["protobuf-compiler", "libprotobuf-dev"],
};
pub(crate) const C_COMPILER: Need =
    Need { what: "a C compiler", found: || on_path("cc").is_some(), packages: &["gcc", "libc6-dev"] };
pub(crate) const BINUTILS: Need =
    Need { what: "objcopy", found: || on_path("objcopy").is_some(), packages: &["binutils"] };
pub(crate) const CPP_COMPILER: Need =
    Need { what: "a C++ compiler", found: || on_path("c++").is_some(), packages: &["g++"] };
pub(crate) const POSTGRESQL: Need =
    Need { what: "PostgreSQL", found: || postgresql_bin().is_some(), packages: &["postgresql"] };
pub(crate) const RABBITMQ: Need = Need {
    what: "RabbitMQ",
    found: || Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server").exists(),
    packages: &["rabbitmq-server"],
};
pub(crate) const REDIS: Need =
    Need { what: "Redis", found: || on_path("redis-server").is_some(), packages: &["redis-server"] };
pub(crate) const PGBOUNCER: Need =
    Need { what: "PgBouncer", found: || on_path("pgbouncer").is_some(), packages: &["pgbouncer"] };
pub(crate) const DOCKER: Need = Need {
    what: "Docker",
    found: || on_path("docker").is_some() && on_path("dockerd").is_some(),
    packages: &["docker.io"],
};
pub(crate) const DEBOOTSTRAP: Need =
    Need { what: "debootstrap", found: || on_path("debootstrap").is_some(), packages: &["debootstrap"] };

pub(crate) const NSPAWN: Need =
    Need { what: "systemd-nspawn", found: || on_path("systemd-nspawn").is_some(), packages: &["systemd-container"] };
pub(crate) const OPENSSL: Need =
    Need { what: "openssl", found: || on_path("openssl").is_some(), packages: &["openssl"] };
pub(crate) const NGINX: Need = Need { what: "nginx", found: || on_path("nginx").is_some(), packages: &["nginx"] };
pub(crate) const HAPROXY: Need =
    Need { what: "HAProxy", found: || on_path("haproxy").is_some(), packages: &["haproxy"] };

/// With promtool, and Alertmanager with amtool.
pub(crate) const PROMETHEUS: Need = Need {
    what: "Prometheus",
    found: || on_path("prometheus").is_some() && on_path("prometheus-alertmanager").is_some(),
    packages: &["prometheus", "prometheus-alertmanager"],
};

pub(crate) const CURL: Need = Need { what: "curl", found: || on_path("curl").is_some(), packages: &["curl"] };

pub(crate) const NODE: Need = Need {
    what: "Node.js 20 or newer",
    found: || has_node() && on_path("npm").is_some(),
    packages: &["nodejs", "npm"],
};
pub(crate) const PYTHON: Need = Need { what: "Python", found: has_venv, packages: &["python3", "python3-venv"] };

/// Debian 12 and Ubuntu 24.04 have an older one.
fn has_node() -> bool {
    on_path("node").is_some_and(|node| {
        let said = Command::new(node).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let major = said.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
        major.is_some_and(|major| major >= 20)
    })
}

/// Debian packs what makes a virtual environment apart.
fn has_venv() -> bool {
    on_path("python3").is_some_and(|python| {
        let check = Command::new(python).args(["-c", "import venv, ensurepip"]).output();
        check.is_ok_and(|output| output.status.success())
    })
}

/// Installs what building and running without containers needs.
pub(crate) fn everything() -> anyhow::Result<()> {
    ensure(&[C_COMPILER, PROTOC, POSTGRESQL, RABBITMQ, REDIS, PGBOUNCER, OPENSSL, NGINX, HAPROXY])
}

/// Installs what of this is missing.
pub(crate) fn ensure(needs: &[Need]) -> anyhow::Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.found)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|need| need.what).collect::<Vec<_>>().join(", ");
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    if on_path("apt-get").is_none() {
        bail!("{names} missing, and this is no Debian or Ubuntu: install {} by hand", packages.join(" "));
    }
    let step = Step::begin(format!("installing {names} (apt-get install {})", packages.join(" ")));
    {
        let _quiet = NoAutostart::begin()?;
        apt(&["update"])?;
        apt(&[&["install", "-y", "--no-install-recommends"], &packages[..]].concat())?;
    }
    if let Some(need) = missing.iter().find(|need| !(need.found)()) {
        bail!("{} is still missing after installing {}", need.what, need.packages.join(" "));
    }
    step.done(format!("{names} installed"));
    Ok(())
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = as_root("apt-get");
    run_quietly(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
        .map(drop)
        .with_context(|| format!("apt-get {} failed; run it by hand, then try again", arguments.join(" ")))
}

/// `program` as root: directly, or through sudo.
pub(crate) fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["--preserve-env=DEBIAN_FRONTEND", program]);
    sudo
}

/// Debian starts a server when it installs it. While this lives, it does not: our servers are private.
struct NoAutostart;

/// The way a policy that is there already is known to be ours, left by a run that was killed.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_MARK: &str = "written by cargo xtask";

impl NoAutostart {
    /// None where the machine has a policy of its own, which is kept.
    fn begin() -> anyhow::Result<Option<Self>> {
        if fs::read_to_string(POLICY).is_ok_and(|policy| !policy.contains(POLICY_MARK)) {
            return Ok(None);
        }
        let script = format!("printf '#!/bin/sh\n# {POLICY_MARK}\nexit 101\n' > {POLICY} && chmod 755 {POLICY}");
        run_quietly(as_root("sh").args(["-c", &script]))?;
        Ok(Some(Self))
    }
}

impl Drop for NoAutostart {
    fn drop(&mut self) {
        let _ = run_quietly(as_root("rm").args(["-f", POLICY]));
    }
}

/// A tool that cargo installs, in the one version that this checkout is tested with.
pub(crate) struct CargoTool {
    krate: &'static str,
    version: &'static str,
    binary: &'static str,
    arguments: &'static [&'static str],
}

pub(crate) const NEXTEST: CargoTool =
    CargoTool { krate: "cargo-nextest", version: "0.9.151", binary: "cargo-nextest", arguments: &["--debug"] };
pub(crate) const DENY: CargoTool =
    CargoTool { krate: "cargo-deny", version: "0.20.2", binary: "cargo-deny", arguments: &["--debug"] };
pub(crate) const MACHETE: CargoTool =
    CargoTool { krate: "cargo-machete", version: "0.9.2", binary: "cargo-machete", arguments: &["--debug"] };
pub(crate) const SQLX: CargoTool = CargoTool {
    krate: "sqlx-cli",
    version: "0.8.6",
    binary: "cargo-sqlx",
    arguments: &["--debug", "--no-default-features", "--features", "postgres,rustls"],
};

impl CargoTool {
    /// Where it is: on the path in this version, or installed into target/tools.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        let tools = crate::root().join("target/tools");
        let own = tools.join("bin").join(self.binary);
        if let Some(found) = on_path(self.binary).into_iter().chain([own.clone()]).find(|file| self.is(file)) {
            return Ok(found);
        }
        let step = Step::begin(format!("installing {} {} into target/tools (once)", self.krate, self.version));
        let mut cargo = Command::new("cargo");
        cargo.args(["install", "--locked", "--force", "--root"]).arg(&tools).args(["--version", self.version]);
        run_quietly(cargo.args(self.arguments).arg(self.krate))?;
        step.done(format!("{} {} installed", self.krate, self.version));
        Ok(own)
    }

    fn is(&self, file: &Path) -> bool {
        // Some want to be called as cargo calls them.
        let name = self.binary.trim_start_matches("cargo-");
        let says = |arguments: &[&str]| {
            run_quietly(Command::new(file).args(arguments)).is_ok_and(|said| said.contains(self.version))
        };
        file.is_file() && (says(&["--version"]) || says(&[name, "--version"]))
    }
}
