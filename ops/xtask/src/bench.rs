//! Benchmarks, each beside its baselines in the same run, on a private PostgreSQL that flushes every commit.
use crate::{
    go,
    install::{C_COMPILER, POSTGRESQL, PROTOC, ensure, on_path, postgresql_bin},
    progress::{Step, run, run_quietly},
    servers::{layout::Layout, processes::Processes, start_postgres},
    test::{EVERYTHING, build},
};
use anyhow::bail;
use clap::{Args, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const BACKLOG: u32 = 100_000;
const SMOKE_BACKLOG: u32 = 1_000;
/// Built together, whatever is measured: apart, their libraries would have other features and be built again.
pub(crate) const RELEASED: [&str; 5] = ["-p", "gavel-bench", "-p", "gavel", "--bins"];
const CENTRIFUGO: &str = "github.com/centrifugal/centrifugo/v6@v6.9.1";

/// Measure, in release; writes target/bench/NAME.md and NAME.json.
#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
    /// Only see that everything runs, in a few seconds and not optimised: the figures mean nothing
    #[arg(long, global = true)]
    smoke: bool,
}

#[derive(Subcommand)]
enum What {
    /// Jobs beside the stock sqlxmq runner, graphile-worker, pg-boss and, where there is a Go toolchain, River
    Jobs {
        /// Rounds, of which the median counts
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Jobs in the queue when a worker starts
        #[arg(long, default_value_t = BACKLOG)]
        backlog: u32,
        /// Only this part
        #[arg(long, value_parser = ["rounds", "snapshot", "backlogs", "workers", "memory"])]
        only: Option<String>,
    },
    /// Bids over gRPC beside pgbench running the naive transaction of a bid
    Bids {
        /// Rounds, of which the median counts
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Only this part (rounds, growth), or one cell: ITEMSxCLIENTS, such as 10000x64
        #[arg(long, value_parser = part_or_cell)]
        only: Option<String>,
    },
    /// Twice as many bids as there can be, a database that stands still, watchers that stop reading
    Overload {
        /// Rounds, of which the median counts
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Only this part
        #[arg(long, value_parser = ["twice", "stall", "watchers"])]
        only: Option<String>,
    },
    /// What a bid costs whom, and whether that foretells another load
    Capacity {
        /// Rounds, of which the median counts
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// The outbox relay beside a bare publisher, and how long an event takes to a consumer
    Relay {
        /// Rounds, of which the median counts
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Statistics applied in batches beside a transaction for each event
    Stats {
        /// Rounds, of which the median counts
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Calls through each protocol beside bare poem-grpc, for a second of the processors' time
    Edge {
        /// Rounds, of which the median counts
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// A backfill beside one bulk UPDATE and beside batches as GitLab makes them; what its trigger costs
    Backfill {
        /// Rounds, of which the median counts
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Only this part
        #[arg(long, value_parser = ["filling", "bids", "trigger"])]
        only: Option<String>,
    },
    /// Watchers of one item beside, where there is a Go toolchain, Centrifugo's of a channel: how late an update comes,
    /// what one costs
    Watch {
        /// Only so many watchers, or this load: WATCHERSxBIDS a second, such as 2000x50
        #[arg(long, value_parser = watchers_or_load)]
        only: Option<String>,
    },
}

/// Accepts a count from 1.
fn is_count(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|number| number > 0)
}

/// Two counts, such as 10000x64.
fn is_pair(text: &str) -> bool {
    text.split_once('x').is_some_and(|(one, other)| is_count(one) && is_count(other))
}

fn watchers_or_load(text: &str) -> Result<String, String> {
    let is_known = is_count(text) || is_pair(text);
    is_known
        .then(|| text.to_owned())
        .ok_or_else(|| "allowed: a number of watchers, or a load such as 2000x50".to_owned())
}

fn part_or_cell(text: &str) -> Result<String, String> {
    let is_known = is_pair(text) || matches!(text, "rounds" | "growth");
    is_known.then(|| text.to_owned()).ok_or_else(|| "allowed: rounds, growth, or a cell such as 10000x64".to_owned())
}

/// Sees that all of them run.
pub(crate) fn smoke() -> anyhow::Result<()> {
    let (rounds, only) = (1, None);
    let all = [
        What::Jobs { rounds, backlog: BACKLOG, only: only.clone() },
        What::Bids { rounds, only: only.clone() },
        What::Overload { rounds, only: only.clone() },
        What::Capacity { rounds },
        What::Relay { rounds },
        What::Stats { rounds },
        What::Edge { rounds },
        What::Backfill { rounds, only: only.clone() },
        What::Watch { only },
    ];
    all.into_iter().try_for_each(|what| Bench { what, smoke: true }.run())
}

impl Bench {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        ensure(&[C_COMPILER, PROTOC, POSTGRESQL])?;
        match &self.what {
            What::Jobs { rounds, backlog, only } => self.jobs(*rounds, *backlog, only.as_deref()),
            What::Bids { rounds, only } => self.ours("bids", *rounds, only.as_deref()),
            What::Overload { rounds, only } => self.ours("overload", *rounds, only.as_deref()),
            What::Capacity { rounds } => self.ours("capacity", *rounds, None),
            What::Relay { rounds } => self.ours("relay", *rounds, None),
            What::Stats { rounds } => self.ours("stats", *rounds, None),
            What::Edge { rounds } => self.ours("edge", *rounds, None),
            What::Backfill { rounds, only } => self.ours("backfill", *rounds, only.as_deref()),
            What::Watch { only } => self.ours("watch", 1, only.as_deref()),
        }
    }

    fn jobs(&self, rounds: u32, backlog: u32, only: Option<&str>) -> anyhow::Result<()> {
        if on_path("node").is_none() || on_path("npm").is_none() {
            bail!("the baselines graphile-worker and pg-boss need Node.js 20 or newer and npm: install them first");
        }
        let baselines = crate::root().join("ops/bench/baselines");
        let step = Step::begin("installing the baselines (npm ci)");
        run_quietly(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&baselines))?;
        step.done("baselines installed");
        let river = in_go("River", || go::build("river", &baselines.join("river")));
        let bins = self.build()?;
        let layout = Layout::claim("bench")?;
        layout.wipe_data()?;
        let (_postgres, url) = start_postgres(&layout)?;
        let mut bench = self.program(&bins);
        bench.args(["jobs", &url]).arg(&baselines).arg(self.out());
        bench.envs(river.map(|program| ("RIVER", program)));
        let backlog = if self.smoke { backlog.min(SMOKE_BACKLOG) } else { backlog };
        run(bench.args([self.rounds(rounds).to_string(), backlog.to_string()]).args(only))
    }

    /// The released binaries beside a baseline on the same servers, as durable as in production.
    fn ours(&self, what: &str, rounds: u32, only: Option<&str>) -> anyhow::Result<()> {
        let peer = match what {
            "watch" => in_go("Centrifugo", || go::install(CENTRIFUGO)),
            _ => None,
        };
        let bins = self.build()?;
        let layout = Layout::claim("bench")?;
        layout.wipe_data()?;
        let servers = Processes::start(layout, true)?;
        let urls = &servers.urls;
        let mut bench = self.program(&bins);
        bench.args([what, &urls.postgres]).arg(&bins).arg(self.out());
        bench.arg(self.rounds(rounds).to_string()).args(only);
        bench.envs(peer.map(|program| ("CENTRIFUGO", program)));
        run(bench.env("AMQP_URL", &urls.amqp).env("REDIS_URL", &urls.redis))
    }

    fn build(&self) -> anyhow::Result<PathBuf> {
        // A smoke test takes what the tests are built with.
        if self.smoke { build(&EVERYTHING, false) } else { build(&RELEASED, true) }
    }

    fn program(&self, bins: &Path) -> Command {
        let mut bench = Command::new(bins.join("gavel-bench"));
        if self.smoke {
            bench.env("SMOKE", "1");
        }
        // pgbench comes with the server and is not on everybody's path.
        let own = std::env::var_os("PATH").unwrap_or_default();
        let path = postgresql_bin().into_iter().chain(std::env::split_paths(&own));
        if let Ok(path) = std::env::join_paths(path) {
            bench.env("PATH", path);
        }
        bench
    }

    fn rounds(&self, rounds: u32) -> u32 {
        if self.smoke { 1 } else { rounds }
    }

    fn out(&self) -> PathBuf {
        crate::root().join(if self.smoke { "target/bench/smoke" } else { "target/bench" })
    }
}

/// A peer that is written in Go, where it can be built.
fn in_go(name: &str, build: impl FnOnce() -> anyhow::Result<PathBuf>) -> Option<PathBuf> {
    if !go::is_here() {
        eprintln!("  {name}: not run, there is no Go toolchain");
        return None;
    }
    let step = Step::begin(format!("building {name} (once)"));
    match build() {
        Ok(program) => {
            step.done(format!("{name} built"));
            Some(program)
        }
        Err(error) => {
            eprintln!("  {name}: not run, {error:#}");
            None
        }
    }
}
