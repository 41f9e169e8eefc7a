//! What can be made anew from the truth.
mod read_model;

use crate::bidctl::{output::Output, settings::Settings, why};
use anyhow::bail;
use clap::{Args, Subcommand};
use gavel::apply_user_stats::{ApplyUserStats, rebuild::rebuild};
use gavel_runtime::{diagnose, message::TxBatchHandler, schema};
use read_model::ReadModel;
use serde_json::json;

/// Programs that count.
const COUNTING: [&str; 1] = ["bid-worker"];

#[derive(Subcommand)]
pub(crate) enum Rebuild {
    /// Users' statistics, from the items and the ledger of bids, while no worker runs
    Stats(Stats),
    /// The read model in Redis, from the items, by a job, while everybody works
    ReadModel(ReadModel),
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
            Self::ReadModel(read_model) => read_model.run(settings, output).await,
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
            if output.is_watched() {
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
