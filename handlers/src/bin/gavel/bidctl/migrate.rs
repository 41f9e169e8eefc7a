//! Migrations.
use crate::bidctl::{output::Output, settings::Settings};
use clap::Args;
use gavel::{
    rights::RIGHTS,
    schema::{PROGRAMS, SOURCES},
};
use gavel_runtime::{
    changes::History,
    schema::{self, rights},
};
use serde_json::json;

/// Applies the expand migrations, and grants the rights at their tables where there are roles for them: over a
/// connection of its own, with lock time-outs, one process at a time.
#[derive(Args)]
pub(crate) struct Migrate {
    /// Create the database first, when it is missing
    #[arg(long)]
    create_database: bool,
}

/// PostgreSQL's code for what an account may not do.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// An account that may not is most often the program's own.
fn explained(error: anyhow::Error) -> anyhow::Error {
    let code = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<sqlx::Error>()?.as_database_error()?.code().map(std::borrow::Cow::into_owned)
    };
    if error.chain().filter_map(code).any(|code| code == INSUFFICIENT_PRIVILEGE) {
        return error.context("DATABASE_URL is an account's that may not migrate: it takes the tables' owner");
    }
    error
}

impl Migrate {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let mut env = settings.env();
        let url = env.secret_url("DATABASE_URL", &["postgres", "postgresql"], "the database to migrate");
        env.finish()?;
        if self.create_database {
            schema::create_database(&url).await?;
        }
        let history = History::read(SOURCES)?;
        let applied = schema::migrate(&url, &gavel::EXPAND, (&history, PROGRAMS)).await.map_err(explained)?;
        rights::grant(&url, "gavel", &gavel::EXPAND, RIGHTS).await?;
        let rows: Vec<_> = applied.iter().map(|name| vec![name.clone()]).collect();
        output.table(&json!({ "applied": applied }), &["applied"], &rows);
        Ok(())
    }
}
