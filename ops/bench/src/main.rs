//! Measures Gavel beside its baselines, in one run on the same servers. Started by `cargo xtask bench`.
#![allow(clippy::disallowed_types, reason = "it looks from outside")]

mod backfill;
mod baselines;
mod bids;
mod capacity;
mod edge;
mod events;
mod extent;
mod growth;
mod ours;
mod overload;
mod rehearse;
mod report;
mod rounds;
mod waiting;
mod watch;

use bids::service::Releases;
use mimalloc::MiMalloc;
use ours::EXPAND;
use report::markdown;
use rounds::Samples;
use sqlx::{Connection, Executor, PgConnection, postgres::PgPoolOptions};
use std::{fs, time::Duration};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// So much work in so much time.
#[derive(Debug, Clone, Copy)]
struct Measured {
    jobs: u64,
    took: Duration,
}

impl Measured {
    fn per_second(self) -> f64 {
        f64::from(u32::try_from(self.jobs).unwrap_or(u32::MAX)) / self.took.as_secs_f64()
    }
}

async fn fresh(base: &str, name: &str) -> anyhow::Result<sqlx::PgPool> {
    let mut admin = PgConnection::connect(&format!("{base}/postgres")).await?;
    admin.execute(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)").as_str()).await?;
    admin.execute(format!("CREATE DATABASE {name}").as_str()).await?;
    Ok(PgPoolOptions::new().max_connections(4).connect(&format!("{base}/{name}")).await?)
}

/// Writes the table, for people and for scripts.
fn write(out: &str, name: &str, rows: &[report::Row]) -> anyhow::Result<()> {
    let mut text = markdown(rows);
    if extent::is_smoke() {
        text.insert_str(0, "A smoke test, too short and not optimised: the figures mean nothing.\n\n");
    }
    println!("{text}");
    fs::create_dir_all(out)?;
    fs::write(format!("{out}/{name}.md"), text)?;
    let json = serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))? + "\n";
    Ok(fs::write(format!("{out}/{name}.json"), json)?)
}

async fn jobs(
    base: &str,
    node: &str,
    rounds: usize,
    backlog: u64,
    only: Option<&str>,
) -> anyhow::Result<Vec<report::Row>> {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if wanted("rounds") {
        let mut samples = Samples::default();
        for number in 1..=rounds {
            eprintln!("  … round {number} of {rounds}");
            rounds::round(&mut samples, base, node, backlog).await?;
        }
        rows.extend(samples.report(backlog));
    }
    if wanted("snapshot") {
        eprintln!("  … pickup, idle and under a held snapshot");
        rows.extend(growth::snapshot(base).await?);
    }
    if wanted("backlogs") {
        eprintln!("  … backlogs of 10 000, 100 000 and 1 000 000");
        rows.extend(growth::backlogs(base).await?);
    }
    if wanted("workers") {
        eprintln!("  … one worker and two");
        rows.extend(growth::workers(base).await?);
    }
    if wanted("memory") {
        eprintln!("  … memory");
        rows.extend(growth::memory(base).await?);
    }
    Ok(rows)
}

/// `gavel-bench jobs POSTGRES_URL NODE_DIR OUT_DIR ROUNDS BACKLOG [PART]`, `gavel-bench bids|capacity|edge|overload|relay|stats|
/// watch POSTGRES_URL BIN_DIR OUT_DIR ROUNDS [PART]`, with `AMQP_URL` and `REDIS_URL` for all but the first.
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Clients of a service share the machine with it. On one thread they cost least: a call's frames leave together.
    let mut runtime = match arguments.first() {
        Some(&"bids" | &"capacity" | &"watch" | &"edge" | &"overload") => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(run(&arguments))
}

async fn run(arguments: &[&str]) -> anyhow::Result<()> {
    match *arguments {
        ["worker", database_url] => ours::work(database_url).await,
        ["rehearse", base, old, new, out, rows] => {
            fs::create_dir_all(out)?;
            let new = Releases::in_dir(new, out)?;
            let (old, rows) = (new.beside(old), rows.parse()?);
            rehearse::run(&rehearse::Stage { base, out, old, new, rows }).await
        }
        ["backfill", base, bins, out, rounds, ref only @ ..] => {
            fs::create_dir_all(out)?;
            let new = Releases::in_dir(bins, out)?;
            let stage = rehearse::Stage { base, out, old: new.beside(bins), new, rows: 0 };
            write(out, "backfill", &backfill::run(&stage, rounds.parse()?, only.first().copied()).await?)
        }
        ["edge-server", which] => edge::serve(which).await,
        ["jobs", base, node, out, rounds, backlog, ref only @ ..] => {
            let rows = jobs(base, node, rounds.parse()?, backlog.parse()?, only.first().copied()).await?;
            write(out, "jobs", &rows)
        }
        [
            what @ ("bids" | "capacity" | "relay" | "stats" | "watch" | "edge" | "overload"),
            base,
            bins,
            out,
            rounds,
            ref only @ ..,
        ] => {
            fs::create_dir_all(out)?;
            let bench = bids::Bench { base, out, releases: Releases::in_dir(bins, out)? };
            let (rounds, only) = (rounds.parse()?, only.first().copied());
            let rows = match what {
                "bids" => bids::run(&bench, rounds, only).await?,
                "capacity" => capacity::run(&bench, rounds).await?,
                "relay" => events::relay(&bench, rounds).await?,
                "watch" => watch::run(&bench, only).await?,
                "edge" => edge::run(&bench, rounds).await?,
                "overload" => overload::run(&bench, rounds, only).await?,
                _ => events::stats(&bench, rounds).await?,
            };
            write(out, what, &rows)
        }
        _ => anyhow::bail!("started by cargo xtask bench"),
    }
}
