//! A database of Gavel's own, with its roles.
use crate::bidctl::{output::Output, settings::Settings};
use anyhow::Context;
use clap::Args;
use gavel_runtime::schema;
use serde_json::json;
use std::{fs, path::PathBuf};

/// Makes the database that DATABASE_URL names, where it is missing, and its roles: as an administrator of the server,
/// who is needed for nothing else. It may be run again, and hands over what a database of before owns.
#[derive(Args)]
pub(crate) struct Prepare {
    /// The statements that make the roles, as `bidctl accounts` has written them: administrator/roles.sql
    #[arg(long, value_name = "FILE")]
    roles: PathBuf,
}

impl Prepare {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let mut env = settings.env();
        let url = env.secret_url("DATABASE_URL", &["postgres", "postgresql"], "the database to make");
        env.finish()?;
        let roles = fs::read_to_string(&self.roles).with_context(|| format!("can't read {}", self.roles.display()))?;
        schema::create_database(&url).await?;
        schema::run_statements(&url, &roles).await.with_context(|| self.roles.display().to_string())?;
        output.record(&json!({ "prepared": true }), &[("database", "is there, with its roles".to_owned())]);
        Ok(())
    }
}
