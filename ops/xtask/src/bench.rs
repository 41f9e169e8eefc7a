//! Benchmarks, each beside its baselines in the same run, on a private PostgreSQL that flushes every commit.
use crate::{
    install::{C_COMPILER, POSTGRESQL, PROTOC, ensure, on_path},
    progress::{Step, run, run_quietly},
    servers::layout::Layout,
    servers::start_postgres,
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
}

impl Bench {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let What::Jobs { rounds, backlog, only } = &self.what;
        ensure(&[C_COMPILER, PROTOC, POSTGRESQL])?;
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
        let _postgres = start_postgres(&layout)?;
        let url = format!("postgres://gavel@127.0.0.1:{}", layout.postgres_port());
        let out = crate::root().join("target/bench");
        let figures = [rounds.to_string(), backlog.to_string()];
        run(Command::new(bins.join("gavel-bench")).arg(url).arg(&baselines).arg(out).args(figures).args(only))
    }
}
