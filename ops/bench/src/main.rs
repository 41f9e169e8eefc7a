//! Measures jobs beside their baselines, in one run on one PostgreSQL. Started by `cargo xtask bench jobs`.

mod baselines;
mod growth;
mod ours;
mod report;
mod rounds;

use anyhow::Context;
use report::markdown;
use rounds::Samples;
use sqlx::{Connection, Executor, PgConnection, postgres::PgPoolOptions};
use std::{fs, future::Future, time::Duration};

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

const ROUNDS: usize = 5;

async fn poll_until<F: Future<Output = anyhow::Result<bool>>>(mut done: impl FnMut() -> F) -> anyhow::Result<()> {
    while !done().await? {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn fresh(base: &str, name: &str) -> anyhow::Result<sqlx::PgPool> {
    let mut admin = PgConnection::connect(&format!("{base}/postgres")).await?;
    admin.execute(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)").as_str()).await?;
    admin.execute(format!("CREATE DATABASE {name}").as_str()).await?;
    Ok(PgPoolOptions::new().max_connections(4).connect(&format!("{base}/{name}")).await?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "gavel-bench POSTGRES_URL NODE_DIR OUT_DIR [ROUNDS] [BACKLOG] [PART]";
    let base = arguments.next().context(usage)?;
    let node = arguments.next().context(usage)?;
    if base == "worker" {
        return ours::work(&node).await;
    }
    let out = arguments.next().context(usage)?;
    let rounds = arguments.next().map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    let backlog = arguments.next().map_or(Ok(100_000), |backlog| backlog.parse())?;
    let only = arguments.next();
    let wanted = |part: &str| only.as_ref().is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if wanted("rounds") {
        let mut samples = Samples::default();
        for number in 1..=rounds {
            eprintln!("  … round {number} of {rounds}");
            rounds::round(&mut samples, &base, &node, backlog).await?;
        }
        rows.extend(samples.report(backlog));
    }
    if wanted("snapshot") {
        eprintln!("  … pickup, idle and under a held snapshot");
        rows.extend(growth::snapshot(&base).await?);
    }
    if wanted("backlogs") {
        eprintln!("  … backlogs of 10 000, 100 000 and 1 000 000");
        rows.extend(growth::backlogs(&base).await?);
    }
    if wanted("workers") {
        eprintln!("  … one worker and two");
        rows.extend(growth::workers(&base).await?);
    }
    if wanted("memory") {
        eprintln!("  … memory");
        rows.extend(growth::memory(&base).await?);
    }
    let text = markdown(&rows);
    println!("{text}");
    fs::create_dir_all(&out)?;
    fs::write(format!("{out}/jobs.md"), text)?;
    fs::write(format!("{out}/jobs.json"), serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))? + "\n")?;
    Ok(())
}
