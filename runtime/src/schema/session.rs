//! The session of whoever changes the schema, and what they ask first.
use crate::{Conn, postgres::Connector};
use secrecy::SecretString;
use sqlx::error::DatabaseError;
use std::{borrow::Cow, time::Duration};

/// A migration's transaction may wait for its process for so long.
const QUIET: Duration = Duration::from_mins(10);

/// To the host that takes writes.
pub(super) async fn connector(database_url: &SecretString) -> anyhow::Result<Connector> {
    let connector = Connector::new(database_url, "gavel-migrate", QUIET)?;
    connector.look(&mut None).await;
    Ok(connector)
}

/// A connection as whoever owns the tables, for what must not happen while certain programs work.
///
/// # Errors
/// When the database does not answer, or while one of those programs lives.
pub async fn while_nobody_works(database_url: &SecretString, programs: &[&str]) -> anyhow::Result<Conn> {
    let mut conn = connector(database_url).await?.connect("schema", crate::postgres::Purpose::Work).await?;
    let living = super::presence::living(&mut conn, programs).await?;
    let working = living.iter().filter(|one| programs.contains(&one.process.as_str()));
    let names: Vec<_> = working.map(|one| format!("{} on {}", one.process, one.host)).collect();
    if !names.is_empty() {
        anyhow::bail!("stop these first, they work with what is to be changed: {}", names.join(", "));
    }
    Ok(conn)
}

pub(super) async fn applied_versions(conn: &mut Conn) -> Result<Vec<i64>, sqlx::Error> {
    match sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success").fetch_all(conn).await {
        Err(error) if is_undefined_table(&error) => Ok(Vec::new()),
        result => result,
    }
}

pub(super) fn is_undefined_table(error: &sqlx::Error) -> bool {
    code_of(error).as_deref() == Some("42P01")
}

pub(super) fn code_of(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}
