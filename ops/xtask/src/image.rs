//! The image as anybody builds it: all of the Dockerfile, from a clean checkout; and what came of it.
use crate::{
    compose, dist, images,
    install::{BINUTILS, DOCKER, ensure},
    names::{NAMES, PROGRAM},
    progress::{Step, run_quietly},
    test::build,
};
use anyhow::{Context, bail, ensure as require};
use flate2::read::ZlibDecoder;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

const IMAGE: &str = "gavel-built";
/// What the image may weigh without its base, in MB.
const MOST_MB: f64 = 60.0;

/// Builds it, builds it again after a change of code, looks at it, and runs all of Compose from it.
pub(crate) fn run() -> anyhow::Result<()> {
    ensure(&[DOCKER, BINUTILS])?;
    images::ensure()?;
    let (base, toolchain) = (images::runtime()?, images::rust()?);
    let dir = crate::root().join("target/image");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let checkout = dir.join("checkout");
    run_quietly(Command::new("git").args(["clone", "--quiet"]).arg(crate::root()).arg(&checkout))?;
    let library = checkout.join("handlers/src/lib.rs");
    let code = fs::read_to_string(&library)?;
    fs::write(&library, code.clone() + "\n// Changed.\n")?;
    let first = built(&checkout, &toolchain, &base, &["--no-cache"])?;
    fs::write(&library, code)?;
    let again = built(&checkout, &toolchain, &base, &[])?;
    require!(again.compiled.iter().any(|name| name == "gavel"), "nothing was built of the changed code");
    let others: Vec<_> = again.compiled.iter().filter(|name| !name.starts_with("gavel")).collect();
    require!(others.is_empty(), "a change of code built what others wrote again: {others:?}");
    let last = built(&checkout, &toolchain, &base, &[])?;
    let figures = look(&dir, &base)?;
    compose::tried_with(IMAGE, &build(&["--package", "gavel", "--bins"], false)?)?;
    report(&[
        ("the image, from nothing", format!("{:.0} s", first.seconds)),
        ("again, after a change of code", format!("{:.0} s", again.seconds)),
        ("again, unchanged", format!("{:.0} s", last.seconds)),
        ("its size beside its base", format!("{:.1} MB of {MOST_MB} MB", figures.megabytes)),
        ("crates that the program says it is made of", figures.crates.to_string()),
    ])
}

struct Built {
    seconds: f64,
    /// Crates.
    compiled: Vec<String>,
}

/// One build of the whole Dockerfile.
fn built(checkout: &Path, toolchain: &str, base: &str, options: &[&str]) -> anyhow::Result<Built> {
    let (step, began) = (Step::begin("building the image, programs and all"), Instant::now());
    let mut docker = Command::new(images::plugin("docker-buildx")?);
    docker.args(["build", "--progress", "plain", "--network", "host", "--load", "--tag", IMAGE]).args(options);
    for (name, value) in [("BUILD_IMAGE", toolchain), ("RUNTIME_IMAGE", base), ("REVISION", &dist::revision())] {
        docker.arg("--build-arg").arg(format!("{name}={value}"));
    }
    // What it did is said on standard error.
    let said = run_quietly(
        Command::new("sh").args(["-c", "exec 2>&1; exec \"$@\"", "sh"]).args(words(&docker)).arg(checkout),
    )?;
    step.done("image built");
    Ok(Built { seconds: began.elapsed().as_secs_f64(), compiled: compiled(&said) })
}

fn words(command: &Command) -> Vec<std::ffi::OsString> {
    [command.get_program()].into_iter().chain(command.get_args()).map(ToOwned::to_owned).collect()
}

/// The crates that cargo says it compiles: `#20 12.3    Compiling serde v1.0.0`.
fn compiled(said: &str) -> Vec<String> {
    let named = said.lines().filter_map(|line| line.split_once(" Compiling ")?.1.split(' ').next());
    named.map(str::to_owned).collect()
}

struct Figures {
    megabytes: f64,
    crates: usize,
}

/// Looks at what was built as somebody would who has to answer for it.
fn look(dir: &Path, base: &str) -> anyhow::Result<Figures> {
    let step = Step::begin("looking at the image");
    let inspect = |image: &str, what: &str| -> anyhow::Result<String> {
        let said = run_quietly(Command::new("docker").args(["image", "inspect", "--format", what, image]))?;
        Ok(said.trim().to_owned())
    };
    require!(inspect(IMAGE, "{{.Config.User}}")? == "10001:10001", "it runs as somebody else");
    let bytes = inspect(IMAGE, "{{.Size}}")?.parse::<f64>()? - inspect(base, "{{.Size}}")?.parse::<f64>()?;
    let inside = |arguments: &[&str]| {
        let read_only = ["run", "--rm", "--read-only", "--network", "none", IMAGE];
        run_quietly(Command::new("docker").args(read_only).args(arguments))
    };
    for name in NAMES {
        let version = inside(&[&format!("/bin/{name}"), "--version"])?;
        require!(version.starts_with(name), "/bin/{name} is {version}");
    }
    writable_by_its_user()?;
    let labels: Value = serde_json::from_str(&inspect(IMAGE, "{{json .Config.Labels}}")?)?;
    for (name, value) in [("title", "Gavel"), ("licenses", "Apache-2.0"), ("revision", &dist::revision())] {
        let label = &labels[format!("org.opencontainers.image.{name}")];
        require!(label == value, "its label {name} is {label}, and should be {value}");
    }
    let megabytes = bytes / 1e6;
    let crates = crates(dir)?;
    let revision = dist::revision();
    require!(dist::says(&dir.join(PROGRAM), &revision)?, "the program does not say that it was built of {revision}");
    step.done(format!("{megabytes:.1} MB beside its base, {crates} crates"));
    Ok(Figures { megabytes, crates })
}

/// Whoever gets in changes nothing of it: found as its user, in a container whose files may be written.
fn writable_by_its_user() -> anyhow::Result<()> {
    // Directories that nobody may look into are no error.
    let find = "find / -xdev -writable ! -type l -print 2> /dev/null; touch /tmp/writable && echo looked";
    let found =
        run_quietly(Command::new("docker").args(["run", "--rm", "--network", "none", IMAGE, "sh", "-c", find]))?;
    require!(found.lines().any(|line| line == "looked"), "nothing can be written there, not even what is meant to be");
    require!(found.lines().any(|line| line == "/tmp"), "find says nothing of /tmp, which can be written");
    match found.lines().find(|path| *path != "looked" && !is_meant_to_be_written(path)) {
        Some(found) => bail!("whoever gets in can change {found}"),
        None => Ok(()),
    }
}

/// Directories for volumes, and for what does not outlive a container.
fn is_meant_to_be_written(path: &str) -> bool {
    ["/accounts", "/keys", "/tmp", "/var/tmp", "/run/lock"].iter().any(|dir| path.starts_with(dir))
}

/// How many crates the program says it is made of, in the form of `cargo auditable`.
fn crates(dir: &Path) -> anyhow::Result<usize> {
    let container = run_quietly(Command::new("docker").args(["create", IMAGE]))?;
    let program = dir.join(PROGRAM);
    let copied =
        run_quietly(Command::new("docker").arg("cp").arg(format!("{}:/bin/{PROGRAM}", container.trim())).arg(&program));
    run_quietly(Command::new("docker").args(["rm", container.trim()]))?;
    copied?;
    let list = dir.join("crates");
    let dump = format!(".dep-v0={}", list.display());
    run_quietly(Command::new("objcopy").arg("--dump-section").arg(dump).arg(&program).arg("/dev/null"))?;
    let said: Value = serde_json::from_reader(ZlibDecoder::new(fs::File::open(list)?)).context("a list of crates")?;
    let names: Vec<_> = said["packages"].as_array().context("packages")?.iter().map(|each| &each["name"]).collect();
    require!(names.iter().any(|name| *name == "sqlx-core"), "it does not say what it is made of");
    Ok(names.len())
}

/// For docs/nightly.md.
fn report(rows: &[(&str, String)]) -> anyhow::Result<()> {
    let path: PathBuf = crate::root().join("target/bench/image.md");
    fs::create_dir_all(path.parent().context("a directory")?)?;
    let rows: Vec<_> = rows.iter().map(|(what, figure)| format!("| {what} | {figure} |")).collect();
    let table = format!("| what | measured |\n| --- | --- |\n{}\n", rows.join("\n"));
    eprintln!("\n{table}");
    fs::write(path, table).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compiled_is_told_by_the_crates_names() {
        let said = "#11 CACHED\n#12 3.4    Compiling serde v1.0.0\n#12 9.1    Compiling gavel v0.1.0 (/src/handlers)\n#12 DONE";
        assert_eq!(compiled(said), ["serde", "gavel"]);
    }
}
