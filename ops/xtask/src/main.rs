//! Gavel's development loop. `cargo xtask up` runs the whole system on a bare Debian or Ubuntu; `cargo xtask test`
//! tests it on real servers. Nothing global is changed but what the distribution's package manager installs.

mod atlas;
mod bench;
mod chaos;
mod ci;
#[cfg(feature = "containers")]
mod compose;
mod conformance;
mod dashboard;
mod deny;
mod dist;
mod fuzz;
mod go;
#[cfg(feature = "containers")]
mod image;
mod images;
mod install;
mod interop;
mod k8s;
mod lend;
mod milestone;
mod names;
mod nightly;
mod observe;
mod plant;
mod progress;
mod rehearse;
mod servers;
mod sqlx;
mod supervisor;
mod test;
mod up;
mod vps;

use clap::{Parser, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
};

/// Run, test and check Gavel.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the whole system up: servers, migrations, service, worker, a few items. Ctrl-C stops all of it
    Up(up::Up),
    /// Stop what an earlier `up` left running
    Down(up::Down),
    /// Run every test on real servers
    Test(test::Test),
    /// Stop real processes at a place of their I/O, make a real fault there, and see what is left
    Atlas(atlas::Atlas),
    /// Plant bugs on purpose, and see what finds them
    Plant(plant::Plant),
    /// Kill, freeze, replace and cut off at random, under load, for long
    Chaos(chaos::Chaos),
    /// Say which exercises of docs/milestones are done, and what is missing
    Milestone(milestone::Milestone),
    /// Measure beside baselines
    Bench(bench::Bench),
    /// Rehearse the schema's changes with the last release's programs beside these, under load
    Rehearse(rehearse::Rehearse),
    /// Build the image and bring docker-compose.yml up, bid through it, kill and scale workers, and take it down
    Compose,
    /// Build all of the Dockerfile, look at what came of it, and run docker-compose.yml from it
    Image,
    /// ops/k8s on a real control plane, where there is a Go toolchain
    K8s(k8s::K8s),
    /// ops/vps on a Debian of its own: installed, rolled over, restored, rebooted
    Vps,
    /// Others' suites against the edge, where there is a Go toolchain
    Conformance,
    /// Write the dashboard for Grafana
    Dashboard(dashboard::Dashboard),
    /// Fuzz the decoder of requests
    Fuzz(fuzz::Fuzz),
    /// Install what building and running needs from the distribution's packages
    Setup,
    /// Build the released program into target/dist, debug information apart
    Dist,
    /// Build stand-ins for the server images, for where they can't be pulled
    Images(images::Images),
    /// Whether what is linked may be: licences, sources, known vulnerabilities
    Deny,
    /// Write .sqlx, the queries as checked against a migrated database
    Sqlx(sqlx::Sqlx),
    /// What takes too long for every commit; writes docs/nightly.md
    Nightly(nightly::Nightly),
    /// What CI runs: every test in containers, one end to end on processes, formatting, lints, licences, .sqlx
    Ci(ci::Ci),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    // Ctrl-C ends what runs in the foreground, such as cargo; we go on just long enough to stop the servers in order.
    let (interrupt, interrupted) = mpsc::channel();
    let handled = ctrlc::set_handler(move || {
        let _ = interrupt.send(());
    });
    let result = handled.map_err(anyhow::Error::from).and_then(|()| run(command, &interrupted));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<test::SaidAbove>() {
                eprintln!("\nxtask: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

impl Command {
    /// Where its servers come from, of those that run on some.
    fn services(&self) -> Option<test::Services> {
        match self {
            Self::Test(test) => Some(test.services()),
            Self::Atlas(atlas) => atlas.services(),
            Self::Plant(plant) => plant.services(),
            Self::Chaos(chaos) => Some(chaos.services()),
            Self::Milestone(milestone) => milestone.services(),
            _ => None,
        }
    }
}

fn run(command: Command, interrupted: &mpsc::Receiver<()>) -> anyhow::Result<()> {
    if !cfg!(feature = "containers") && command.services() == Some(test::Services::Containers) {
        return test::once_more_with_containers();
    }
    match command {
        Command::Up(up) => up.run(interrupted),
        Command::Down(down) => down.run(),
        Command::Test(test) => test.run(),
        Command::Atlas(atlas) => atlas.run(),
        Command::Plant(plant) => plant.run(),
        Command::Chaos(chaos) => chaos.run(),
        Command::Milestone(milestone) => milestone.run(),
        Command::Bench(bench) => bench.run(),
        Command::Rehearse(rehearse) => rehearse.run(),
        #[cfg(feature = "containers")]
        Command::Compose => compose::run(),
        #[cfg(feature = "containers")]
        Command::Image => image::run(),
        #[cfg(not(feature = "containers"))]
        Command::Compose | Command::Image => test::once_more_with_containers(),
        Command::K8s(k8s) => k8s.run(),
        Command::Vps => vps::run(),
        Command::Conformance => conformance::run(),
        Command::Dashboard(dashboard) => dashboard.run(),
        Command::Fuzz(fuzz) => fuzz.run(),
        Command::Setup => install::everything(),
        Command::Dist => dist::run(),
        Command::Images(images) => images.run(),
        Command::Deny => {
            deny::deny().map(|left_out| left_out.into_iter().for_each(|what| eprintln!("not checked: {what}")))
        }
        Command::Sqlx(sqlx) => sqlx.run(),
        Command::Nightly(nightly) => nightly.run(interrupted),
        Command::Ci(ci) => ci.run(),
    }
}

/// The checkout this belongs to.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}
