//! What CI runs.
use crate::{
    atlas::Atlas,
    bench,
    chaos::Chaos,
    deny::deny,
    fuzz, go,
    install::{DOCKER, MACHETE, as_root, ensure, is_root},
    interop,
    milestone::Milestone,
    names::PROGRAM,
    progress::{Step, run, run_quietly, wait_until},
    rehearse,
    servers::{engine::engine_answers, layout::Layout, processes::Processes},
    sqlx::Sqlx,
    test::{Services, Test, with_containers},
};
use anyhow::{Context, bail};
use clap::Args;
use std::{
    fs::File,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What all of it takes on the disk, from a clean checkout, in GiB.
const DISK: u64 = 14;

const CLIPPY: [&str; 8] =
    ["clippy", "--workspace", "--all-targets", "--features", "xtask/containers", "--", "-D", "warnings"];

/// What CI runs: every test in containers, one end to end on processes, formatting, lints, licences, .sqlx.
#[derive(Args)]
pub(crate) struct Ci {
    /// Go on at this stage, such as "docker compose", where those before it have passed
    #[arg(long, value_name = "STAGE")]
    from: Option<String>,
}

impl Ci {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        run_all(self.from.as_deref())
    }
}

fn run_all(from: Option<&str>) -> anyhow::Result<()> {
    has_room()?;
    let began = Instant::now();
    let (mut times, mut skipped) = (Vec::new(), Vec::new());
    let mut awaited = from;
    let mut stage = |name: &'static str, step: &mut dyn FnMut() -> anyhow::Result<()>| {
        if awaited.is_some_and(|awaited| awaited != name) {
            skipped.push(name);
            return Ok(());
        }
        awaited = None;
        eprintln!("\n── {name}");
        let began = Instant::now();
        let result = step();
        times.push((name, began.elapsed()));
        result
    };
    stage("formatting", &mut || run(cargo().args(["fmt", "--all", "--check"])))?;
    stage("contracts", &mut interop::contracts)?;
    stage("docker", &mut docker)?;
    stage("every test, in containers", &mut || with_containers(&["test", "--services", "containers"]))?;
    stage("end to end, on processes", &mut || Test::new(Services::Processes, &["-E", "test(travels::)"]).run())?;
    stage("one fault at every site", &mut || Atlas::sample(Services::Processes).run())?;
    stage("faults at random, for half a minute", &mut || Chaos::smoke(Services::Processes).run())?;
    // Their chapters plant every bug, and rehearse a change of the schema beside the last release.
    stage("six milestones", &mut || Milestone::check_all(Services::Processes).run())?;
    stage("docker compose", &mut || with_containers(&["compose"]))?;
    stage("benches, as a smoke test", &mut bench::smoke)?;
    stage("clippy", &mut || run(cargo().args(CLIPPY)))?;
    stage("fuzz target", &mut fuzz::check)?;
    stage("rustdoc", &mut || {
        let mut doc = cargo();
        run(doc.args(["doc", "--no-deps", "-p", "gavel-runtime"]).env("RUSTDOCFLAGS", "-D warnings"))?;
        run(cargo().args(["test", "--quiet", "-p", "gavel-runtime", "--doc"]))
    })?;
    stage("unused dependencies", &mut || {
        // Under cargo it would take its first argument for its own name.
        run(Command::new(MACHETE.path()?).current_dir(crate::root()).env_remove("CARGO"))
    })?;
    let mut not_checked =
        vec!["others' suites against the edge: cargo xtask conformance, where there is a Go toolchain"];
    if !rehearse::is_possible() {
        not_checked.push("a change of the schema beside the last release: this clone has not its revision");
    }
    if !go::is_here() {
        not_checked.push("the peers of the benches that are written in Go: there is no toolchain for it");
    }
    stage("cargo deny", &mut || deny().map(|left_out| not_checked.extend(left_out)))?;
    stage("sqlx prepare --check", &mut || {
        let servers = Processes::start(Layout::claim("test")?, false)?;
        Sqlx { check: true }.run_on(&servers.urls)
    })?;
    if let Some(from) = awaited {
        bail!("there is no stage {from:?}; allowed: {}", skipped.join("; "));
    }
    let what = if skipped.is_empty() { "all of it" } else { "all but what was skipped" };
    eprintln!("\n{what} passed in {:.0} s:", began.elapsed().as_secs_f64());
    for (name, took) in times {
        eprintln!("  {:>5.0} s  {name}", took.as_secs_f64());
    }
    for what in not_checked {
        eprintln!("\nnot checked: {what}");
    }
    Ok(())
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(crate::root());
    cargo
}

/// Without room, a database fails in the middle of some test and blames it.
fn has_room() -> anyhow::Result<()> {
    let text = run_quietly(Command::new("df").args(["--output=avail", "--block-size=1G"]).arg(crate::root()))?;
    let free: u64 = text.lines().last().unwrap_or_default().trim().parse().context("what df says")?;
    // Whoever has built before has what building takes.
    let is_clean = !crate::root().join("target/debug").join(PROGRAM).is_file();
    anyhow::ensure!(!is_clean || free >= DISK, "{free} GiB are free where the checkout is; all of it takes {DISK}");
    Ok(())
}

/// Installs the engine from the distribution when there is none, and starts it when it does not answer.
fn docker() -> anyhow::Result<()> {
    ensure(&[DOCKER])?;
    if engine_answers() {
        return Ok(());
    }
    let step = Step::begin("starting dockerd");
    if run_quietly(Command::new("pidof").arg("dockerd")).is_err() {
        // An engine that was killed leaves its pid file, and a new one refuses to start if another program has that
        // pid.
        run_quietly(as_root("rm").args(["-f", "/var/run/docker.pid"]))?;
    }
    let log = std::env::temp_dir().join("gavel-dockerd.log");
    let file = File::create(&log)?;
    // Its socket is for this user's group too, where that is not root's.
    let group = run_quietly(Command::new("id").arg("-gn"))?.trim().to_owned();
    let mut dockerd = as_root("dockerd")
        .args(["--group", &group])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    let alive = || match dockerd.try_wait()? {
        None => Ok(()),
        Some(status) => anyhow::bail!("dockerd ended ({status}); see {}", log.display()),
    };
    wait_until("dockerd", Duration::from_mins(1), alive, engine_answers)?;
    step.done(if is_root() { "dockerd started" } else { "dockerd started through sudo" });
    Ok(())
}
