//! The server images that tests run in containers, and stand-ins for them where no registry can be reached.
//!
//! A stand-in is built from Debian trixie's packages (PostgreSQL 17, RabbitMQ 4.0, Redis 8) on a base made with
//! debootstrap, and understands the variables and arguments of the official image that the tests use.
use crate::{
    install::{DEBOOTSTRAP, DOCKER, as_root, ensure as install},
    progress::{Step, run_quietly},
    servers::engine::image,
};
#[cfg(feature = "containers")]
use anyhow::Context;
use clap::Args;
#[cfg(feature = "containers")]
use std::path::{Path, PathBuf};
use std::{fs, process::Command};

const SUITE: &str = "trixie";
const BASE: &str = "gavel-debian:trixie";
const SERVERS: &str = "gavel-servers:trixie";

/// What the stand-ins are: the versions that trixie has.
const DEFAULTS: [&str; 4] = ["postgres:17", "rabbitmq:4.0", "redis:8.0", "haproxy:3.0"];

pub(crate) fn postgres() -> String {
    image("GAVEL_POSTGRES_IMAGE", DEFAULTS[0])
}
pub(crate) fn rabbitmq() -> String {
    image("GAVEL_RABBITMQ_IMAGE", DEFAULTS[1])
}
pub(crate) fn redis() -> String {
    image("GAVEL_REDIS_IMAGE", DEFAULTS[2])
}

/// Builds the stand-ins, under the names that tests look for.
#[derive(Args)]
pub(crate) struct Images {
    /// Build them even where images of those names are there
    #[arg(long)]
    force: bool,
}

impl Images {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        install(&[DOCKER])?;
        let wanted = all();
        let missing: Vec<_> = wanted.into_iter().filter(|(_, name)| self.force || !is_there(name)).collect();
        if missing.is_empty() {
            eprintln!("  ✓ all images are there (--force builds them again)");
            return Ok(());
        }
        build(&missing)
    }
}

/// Pulls the images that are missing, or builds stand-ins for those of the default names. Another name stands for
/// another version, and nothing stands in for that.
#[cfg(feature = "containers")]
pub(crate) fn ensure() -> anyhow::Result<()> {
    let missing: Vec<_> = all().into_iter().filter(|(_, name)| !is_there(name) && !pulled(name)).collect();
    if let Some((kind, name)) = missing.iter().find(|(_, name)| !DEFAULTS.contains(&name.as_str())) {
        anyhow::bail!(
            "the image {name} for {kind} can't be pulled; stand-ins are built for {} only",
            DEFAULTS.join(", ")
        );
    }
    if missing.is_empty() { Ok(()) } else { build(&missing) }
}

pub(crate) fn haproxy() -> String {
    image("GAVEL_HAPROXY_IMAGE", DEFAULTS[3])
}

fn all() -> [(&'static str, String); 4] {
    [("postgres", postgres()), ("rabbitmq", rabbitmq()), ("redis", redis()), ("haproxy", haproxy())]
}

fn is_there(image: &str) -> bool {
    run_quietly(Command::new("docker").args(["image", "inspect", image])).is_ok()
}

#[cfg(feature = "containers")]
fn pulled(image: &str) -> bool {
    let step = Step::begin(format!("pulling {image}"));
    let pulled = run_quietly(Command::new("docker").args(["pull", "--quiet", image])).is_ok();
    step.done(if pulled { format!("{image} pulled") } else { format!("{image} can't be pulled; a stand-in is built") });
    pulled
}

fn build(images: &[(&str, String)]) -> anyhow::Result<()> {
    if !is_there(BASE) {
        make_base()?;
    }
    docker_build("servers", SERVERS)?;
    for (kind, name) in images {
        docker_build(kind, name)?;
    }
    Ok(())
}

/// The minimal Debian that the stand-ins are built on, made where it is missing.
#[cfg(feature = "containers")]
pub(crate) fn base() -> anyhow::Result<&'static str> {
    if !is_there(BASE) {
        make_base()?;
    }
    Ok(BASE)
}

/// The image that the released one is based on: the Dockerfile's own where it can be pulled, or a minimal Debian.
#[cfg(feature = "containers")]
pub(crate) fn runtime() -> anyhow::Result<String> {
    let wanted = pinned("RUNTIME_IMAGE")?;
    if is_there(&wanted) || pulled(&wanted) { Ok(wanted) } else { base().map(str::to_owned) }
}

/// What an argument of the Dockerfile is where nobody says otherwise.
#[cfg(feature = "containers")]
fn pinned(argument: &str) -> anyhow::Result<String> {
    let file = fs::read_to_string(crate::root().join("Dockerfile"))?;
    let found = file.lines().find_map(|line| line.strip_prefix("ARG ")?.strip_prefix(argument)?.strip_prefix('='));
    found.map(str::to_owned).with_context(|| format!("the Dockerfile has no {argument}"))
}

/// The image that programs are built in: the Dockerfile's own where it can be pulled, or this machine's toolchain.
#[cfg(feature = "containers")]
pub(crate) fn rust() -> anyhow::Result<String> {
    const STAND_IN: &str = "gavel-rust:trixie";
    let wanted = image("GAVEL_BUILD_IMAGE", &pinned("BUILD_IMAGE")?);
    if is_there(&wanted) || pulled(&wanted) {
        return Ok(wanted);
    }
    let step = Step::begin(format!("building {STAND_IN} (ops/images/rust)"));
    let context = crate::root().join("target/image-rust");
    let _ = fs::remove_dir_all(&context);
    fs::create_dir_all(context.join("toolchain"))?;
    let sysroot = run_quietly(Command::new("rustc").args(["--print", "sysroot"]))?;
    for part in ["bin", "lib"] {
        let from = Path::new(sysroot.trim()).join(part);
        run_quietly(Command::new("cp").arg("--recursive").arg(from).arg(context.join("toolchain")))?;
    }
    fs::copy("/etc/ssl/certs/ca-certificates.crt", context.join("ca-certificates.crt"))?;
    let file = crate::root().join("ops/images/rust/Dockerfile");
    let mut docker = Command::new("docker");
    docker.args(["build", "--network", "host", "--tag", STAND_IN, "--file"]).arg(file).arg(&context);
    run_quietly(docker.env("DOCKER_BUILDKIT", "0"))?;
    fs::remove_dir_all(context)?;
    step.done(format!("{STAND_IN} built"));
    Ok(STAND_IN.to_owned())
}

/// One of Docker's plugins, taken from Debian's package: its program needs nothing else.
#[cfg(feature = "containers")]
pub(crate) fn plugin(name: &str) -> anyhow::Result<PathBuf> {
    let kept = crate::root().join("target/tools/bin").join(name);
    let answers = |path: &Path| run_quietly(Command::new(path).arg("version")).is_ok();
    if answers(&kept) {
        return Ok(kept);
    }
    let step = Step::begin(format!("fetching {name}"));
    let dir = kept.parent().context("it has a directory")?;
    fs::create_dir_all(dir)?;
    let fetch = "cd /tmp && apt-get update -qq && apt-get download -qq \"$0\" && dpkg -x \"$0\"_*.deb x \
                 && cp \"x/usr/libexec/docker/cli-plugins/$0\" /out/";
    let mut docker = Command::new("docker");
    docker.args(["run", "--rm", "--network", "host", "--volume"]).arg(format!("{}:/out", dir.display()));
    run_quietly(docker.arg(base()?).args(["sh", "-c", fetch, name]))?;
    anyhow::ensure!(answers(&kept), "{} does not run", kept.display());
    step.done(format!("{name} fetched"));
    Ok(kept)
}

/// A minimal Debian, as a Docker image.
fn make_base() -> anyhow::Result<()> {
    install(&[DEBOOTSTRAP])?;
    let step = Step::begin(format!("making a minimal Debian {SUITE} with debootstrap"));
    let dir = std::env::temp_dir().join(format!("gavel-{SUITE}-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let made = run_quietly(as_root("debootstrap").args(["--variant=minbase", SUITE]).arg(&dir)).and_then(|_| {
        let tar = "tar -C \"$0\" --one-file-system -c . | docker import - \"$1\"";
        run_quietly(as_root("sh").args(["-c", tar]).arg(&dir).arg(BASE))
    });
    run_quietly(as_root("rm").args(["-rf", "--one-file-system"]).arg(&dir))?;
    made?;
    step.done(format!("{BASE} made"));
    Ok(())
}

fn docker_build(kind: &str, name: &str) -> anyhow::Result<()> {
    let step = Step::begin(format!("building {name} (ops/images/{kind})"));
    let context = crate::root().join("ops/images").join(kind);
    let mut docker = Command::new("docker");
    docker.args(["build", "--network", "host", "--tag", name]).arg(context).env("DOCKER_BUILDKIT", "0");
    run_quietly(&mut docker)?;
    step.done(format!("{name} built"));
    Ok(())
}
