//! What can be made anew from the truth.
use crate::bidctl::{output::Output, settings::Settings, why};
use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use gavel::{
    apply_user_stats::{ApplyUserStats, rebuild::rebuild},
    project_item,
};
use gavel_runtime::{diagnose, message::TxBatchHandler, schema};
use serde_json::json;
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// Programs that count.
const COUNTING: [&str; 1] = ["bid-worker"];
/// Longer than going through millions of items takes.
const LIMIT: Duration = Duration::from_hours(24);
/// How far it is, is said so often.
const SAY_EVERY: Duration = Duration::from_secs(2);

#[derive(Subcommand)]
pub(crate) enum Rebuild {
    /// Users' statistics, from the items and the ledger of bids, while no worker runs
    Stats(Stats),
    /// The read model in Redis, from the items, while everybody works
    ReadModel,
}

/// Needs DATABASE_URL as the owner of the tables, AMQP_URL and REDIS_URL.
#[derive(Args)]
pub(crate) struct Stats {
    /// Why, for the audit
    #[arg(long, value_parser = why::reason)]
    reason: String,
}

impl Rebuild {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Stats(stats) => stats.run(settings, output).await,
            Self::ReadModel => read_model(settings, output).await,
        }
    }
}

impl Stats {
    async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let backends = settings.backends()?;
        let mut conn = schema::while_nobody_works(&backends.database_url, &COUNTING).await?;
        let waiting = diagnose::waiting(gavel::app(), &backends, ApplyUserStats::SPEC.name).await?;
        if waiting > 0 {
            bail!(
                "{waiting} messages wait to be counted, and would be twice: let a worker apply them first, or delete the \
                 queue where they are of a time that was taken back"
            );
        }
        let by = why::here(settings)?;
        let rebuilt = rebuild(&mut conn, (&by, &self.reason), |step| {
            if is_watched(output) {
                eprintln!("{step}");
            }
        })
        .await?;
        let record = json!({ "users": rebuilt.users, "differed": rebuilt.differed, "events": rebuilt.events });
        let rows = [
            ("users", rebuilt.users.to_string()),
            ("of whom differed", rebuilt.differed.to_string()),
            ("events counted that will yet come", rebuilt.events.to_string()),
        ];
        output.record(&record, &rows);
        Ok(())
    }
}

/// Goes through all items, and once more: nothing may be wrong then. An item that moved on meanwhile is not.
async fn read_model(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let backends = settings.backends()?;
    let (rebuilt, after) = diagnose::by_hand(gavel::app(), &backends, LIMIT, async |io| {
        let first = project_item::rebuild::rebuild(io, progress(output, "put right")).await?;
        Ok((first, project_item::rebuild::rebuild(io, progress(output, "looked at once more")).await?))
    })
    .await?;
    ensure!(after.wrong == 0, "{} items are wrong again: somebody else writes into the read model", after.wrong);
    let record = json!({
        "items": rebuilt.items, "missing": rebuilt.missing, "earlier": rebuilt.earlier, "wrong": rebuilt.wrong,
    });
    let rows = [
        ("items", rebuilt.items.to_string()),
        ("of which were missing", rebuilt.missing.to_string()),
        ("were an earlier version", rebuilt.earlier.to_string()),
        ("were wrong", rebuilt.wrong.to_string()),
    ];
    output.record(&record, &rows);
    Ok(())
}

/// Says now and then how far it is, to whoever watches.
fn progress(output: Output, what: &'static str) -> impl FnMut(&project_item::rebuild::Rebuilt) {
    let mut said = Instant::now();
    move |so_far| {
        if is_watched(output) && said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            eprintln!("{} items {what}", so_far.items);
        }
    }
}

fn is_watched(output: Output) -> bool {
    !output.json && std::io::stderr().is_terminal()
}
