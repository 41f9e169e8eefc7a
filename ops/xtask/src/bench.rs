//! Benchmarks, each beside its baselines in the same run, on a private PostgreSQL that flushes every commit.
use crate::{
    install::{C_COMPILER, POSTGRESQL, PROTOC, ensure, on_path, postgresql_bin},
    progress::{Step, run, run_quietly},
    servers::{layout::Layout, processes::Processes, start_postgres},
    test::build,
};
use anyhow::bail;
use clap::{Args, Subcommand};
use std::process::Command;

/// Measure, in release; writes target/bench/NAME.md and NAME.json.
#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Jobs beside the stock sqlxmq runner, graphile-worker and pg-boss
    Jobs {
        /// Rounds, of which the median counts
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Jobs in the queue when a worker starts
        #[arg(long, default_value_t = 100_000)]
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
        /// Only this part (rounds, growth, overload), or one cell: ITEMSxCLIENTS, such as 10000x64
        #[arg(long, value_parser = part_or_cell)]
        only: Option<String>,
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
    /// Watchers of one item: how late an update comes, and what one costs
    Watch {
        /// Only so many watchers
        #[arg(long)]
        watchers: Option<u32>,
    },
}

fn part_or_cell(text: &str) -> Result<String, String> {
    let is_number = |part: &str| part.parse::<u32>().is_ok_and(|number| number > 0);
    let is_cell = text.split_once('x').is_some_and(|(items, clients)| is_number(items) && is_number(clients));
    let is_known = is_cell || matches!(text, "rounds" | "growth" | "overload");
    is_known
        .then(|| text.to_owned())
        .ok_or_else(|| "allowed: rounds, growth, overload, or a cell such as 10000x64".to_owned())
}

impl Bench {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        ensure(&[C_COMPILER, PROTOC, POSTGRESQL])?;
        match &self.what {
            What::Jobs { rounds, backlog, only } => jobs(*rounds, *backlog, only.as_deref()),
            What::Bids { rounds, only } => ours("bids", *rounds, only.as_deref()),
            What::Relay { rounds } => ours("relay", *rounds, None),
            What::Stats { rounds } => ours("stats", *rounds, None),
            What::Edge { rounds } => ours("edge", *rounds, None),
            What::Watch { watchers } => ours("watch", 1, watchers.map(|watchers| watchers.to_string()).as_deref()),
        }
    }
}

fn jobs(rounds: u32, backlog: u32, only: Option<&str>) -> anyhow::Result<()> {
    if on_path("node").is_none() || on_path("npm").is_none() {
        bail!("the baselines graphile-worker and pg-boss need Node.js 20 or newer and npm: install them first");
    }
    let baselines = crate::root().join("ops/bench/baselines");
    let step = Step::begin("installing the baselines (npm ci)");
    run_quietly(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&baselines))?;
    step.done("baselines installed");
    let bins = build(&["-p", "gavel-bench"], true)?;
    let layout = Layout::claim("bench")?;
    layout.wipe_data()?;
    let (_postgres, url) = start_postgres(&layout)?;
    let mut bench = Command::new(bins.join("gavel-bench"));
    bench.args(["jobs", &url]).arg(&baselines).arg(out());
    run(bench.args([rounds.to_string(), backlog.to_string()]).args(only))
}

/// The released binaries beside a baseline on the same servers, as durable as in production.
fn ours(what: &str, rounds: u32, only: Option<&str>) -> anyhow::Result<()> {
    let bins = build(&["-p", "gavel-bench", "-p", "gavel", "--bins"], true)?;
    let layout = Layout::claim("bench")?;
    layout.wipe_data()?;
    let servers = Processes::start(layout, true)?;
    let urls = &servers.urls;
    let mut bench = Command::new(bins.join("gavel-bench"));
    bench.args([what, &urls.postgres]).arg(&bins).arg(out()).arg(rounds.to_string()).args(only);
    // pgbench comes with the server and is not on everybody's path.
    let path =
        [postgresql_bin().into_iter().collect(), std::env::split_paths(&path_variable()).collect::<Vec<_>>()].concat();
    bench.env("PATH", std::env::join_paths(path)?);
    run(bench.env("AMQP_URL", &urls.amqp).env("REDIS_URL", &urls.redis))
}

fn path_variable() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

fn out() -> std::path::PathBuf {
    crate::root().join("target/bench")
}
