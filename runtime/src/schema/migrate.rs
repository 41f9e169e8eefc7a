//! Migrations: applied by an operator's tool over a connection of its own; compared, never applied, by services.
use super::{
    contract, guards, indexes, ledger, presence,
    session::{applied_versions, code_of, connector, is_undefined_table},
};
use crate::{
    Conn,
    base::backoff,
    changes::{Change, History, Phase, name_of as name},
    postgres::Purpose,
};
use anyhow::{Context, bail};
use secrecy::SecretString;
use sqlx::{
    Executor,
    migrate::{MigrateError, Migration, Migrator},
};
use std::{borrow::Cow, collections::HashMap, time::Duration};

/// Time for which a migration waits for a lock before it lets everyone else pass and tries again.
const LOCK_TIMEOUT_MS: u32 = 100;
/// Tries, for a migration that doesn't get its lock or for the right to migrate.
const TRIES: u32 = 40;
/// Pauses between tries grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Any constant, the same for all that migrate this database: "GAVL".
const ADVISORY_LOCK: i64 = 0x4741_564C;

/// A migration that the database lacks or has in another form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// It has not been applied.
    Missing(String),
    /// What was applied is not what this binary was built with.
    Changed(String),
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "migration {name} is missing"),
            Self::Changed(name) => write!(f, "migration {name} was applied in another form than this binary knows"),
        }
    }
}

/// Returns what the database lacks for a binary built with `migrator`. Empty when it has all of it, or more.
pub async fn gaps(conn: &mut Conn, migrator: &Migrator) -> Result<Vec<Gap>, sqlx::Error> {
    let applied =
        match sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success").fetch_all(conn).await {
            Ok(rows) => rows,
            Err(error) if is_undefined_table(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
    let applied: HashMap<i64, Vec<u8>> = applied.into_iter().collect();
    Ok(migrator.iter().filter_map(|known| gap(&applied, known)).collect())
}

fn gap(applied: &HashMap<i64, Vec<u8>>, known: &Migration) -> Option<Gap> {
    match applied.get(&known.version) {
        None => Some(Gap::Missing(name(known))),
        Some(checksum) if checksum[..] != known.checksum[..] => Some(Gap::Changed(name(known))),
        Some(_) => None,
    }
}

/// Creates the database that the URL names, unless it is there.
pub async fn create_database(database_url: &SecretString) -> anyhow::Result<()> {
    let connector = connector(database_url).await?;
    let options = connector.options();
    let name = options.get_database().context("DATABASE_URL names no database")?.to_owned();
    let mut conn = connector.connect_plainly("schema", "postgres").await;
    let conn = conn.as_mut().map_err(|error| anyhow::anyhow!("can't look for the database: {error}"))?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(&name)
        .fetch_one(&mut *conn)
        .await
        .context("can't look for the database")?;
    if !exists {
        let create = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        match conn.execute(create.as_str()).await {
            Err(error) if code_of(&error).as_deref() == Some("42P04") => {} // Somebody else has, at the same time.
            created => created.map(drop).context("can't create the database")?,
        }
    }
    Ok(())
}

/// Runs an administrator's statements in the database that the URL names, all or none of them.
pub async fn run_statements(database_url: &SecretString, statements: &str) -> anyhow::Result<()> {
    let connector = connector(database_url).await?;
    let mut conn = connector.connect("schema", Purpose::Work).await.context("can't connect to the database")?;
    let mut tx = conn.begin().await?;
    tx.execute(statements).await?;
    tx.commit().await?;
    conn.close().await.ok();
    Ok(())
}

/// Applies what is missing and returns its names, in order. On a new database the changes of `history` are over at
/// once: there is nothing yet that could need their old forms.
///
/// Works over one connection that is closed afterwards, whatever happens, so that no session lock is left behind.
pub async fn migrate(
    database_url: &SecretString,
    migrator: &'static Migrator,
    (history, programs): (&History, &[&str]),
) -> anyhow::Result<Vec<String>> {
    let connector = connector(database_url).await?;
    let mut conn = connector.connect("schema", Purpose::Work).await.context("can't connect to migrate")?;
    let result = migrate_over(&mut conn, migrator, (history, programs)).await;
    conn.close().await.ok();
    result
}

async fn migrate_over(
    conn: &mut Conn,
    migrator: &'static Migrator,
    (history, programs): (&History, &[&str]),
) -> anyhow::Result<Vec<String>> {
    wait_for_turn(conn).await?;
    let before = applied_versions(conn).await?;
    let missing = |migration: &Migration| !before.contains(&migration.version);
    for (place, migration) in migrator.iter().enumerate() {
        let change = history.get(migration.version);
        if missing(migration) {
            let requires = change.map(|change| change.requires.as_slice()).unwrap_or_default();
            require(conn, history, requires).await.with_context(|| name(migration))?;
            apply(conn, migration, &up_to(migrator, place + 1)).await.with_context(|| name(migration))?;
        }
        if let Some(change) = change.filter(|change| change.outlasts_expand()) {
            end_where_new(conn, (history, programs), change).await?;
        }
    }
    // Also says whether what was applied is what is known here.
    up_to(migrator, migrator.iter().count()).run_direct(conn.raw()).await.map_err(explained)?;
    Ok(migrator.iter().filter(|migration| missing(migration)).map(name).collect())
}

/// Ends a change at once where nobody lives and nothing is written that could need its old form.
async fn end_where_new(
    conn: &mut Conn,
    (history, programs): (&History, &[&str]),
    change: &Change,
) -> anyhow::Result<()> {
    let phase = ledger::phases(conn, history).await?.by_change.get(&change.number).copied();
    let was_stepped = "SELECT EXISTS (SELECT FROM schema_steps WHERE change = $1)
                           OR EXISTS (SELECT FROM backfills WHERE change = $1)";
    let was_stepped: bool = sqlx::query_scalar(was_stepped).bind(change.number).fetch_one(&mut *conn).await?;
    let is_open = phase.is_some_and(|phase| phase < Phase::Contracted) && !was_stepped;
    if is_open && guards::is_new(conn, change).await? && presence::living(conn, programs).await?.is_empty() {
        contract::end_on_new(conn, change).await?;
    }
    Ok(())
}

/// What a migration builds on must be out of reach in its old form.
async fn require(conn: &mut Conn, history: &History, contracts: &[i64]) -> anyhow::Result<()> {
    for number in contracts {
        let phase = ledger::phases(conn, history).await?.by_change.get(number).copied();
        if phase.is_none_or(|phase| phase < Phase::Contracted) {
            let name = history.get(*number).map_or_else(|| number.to_string(), |change| change.name.clone());
            bail!("it requires {name} to be contracted first");
        }
    }
    Ok(())
}

/// The first migrations, as many as are asked for.
fn up_to(migrator: &'static Migrator, count: usize) -> Migrator {
    Migrator {
        migrations: Cow::Borrowed(&migrator.migrations[..count]),
        ignore_missing: true,
        // The turn is taken by polling: sqlx would block on it.
        locking: false,
        ..Migrator::DEFAULT
    }
}

/// Applies one migration, the last of `all`: those before it have been applied.
async fn apply(conn: &mut Conn, migration: &Migration, all: &Migrator) -> anyhow::Result<()> {
    // One that builds an index beside the writers waits for transactions, and holds up nobody meanwhile.
    let lock_timeout_ms = if migration.no_tx { 0 } else { LOCK_TIMEOUT_MS };
    conn.execute(format!("SET lock_timeout = {lock_timeout_ms}").as_str()).await?;
    for attempt in 1..=TRIES {
        if migration.no_tx {
            indexes::drop_half_built(conn, &migration.sql).await?;
        }
        match all.run_direct(conn.raw()).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt < TRIES && is_lock_timeout(&error) => {
                tracing::warn!(attempt, "a lock was not granted within {lock_timeout_ms} ms; trying again");
                tokio::time::sleep(backoff::pause(attempt, PAUSES.0, PAUSES.1)).await;
            }
            Err(error @ MigrateError::VersionMismatch(_)) => return Err(explained(error)),
            Err(error) if migration.no_tx => return Err(error).context("it failed; run it again, and it goes on"),
            Err(error) => return Err(error).context("it failed; nothing of it was kept"),
        }
    }
    bail!("no lock within {TRIES} tries of {lock_timeout_ms} ms; nothing of it was kept")
}

/// Polls, never blocks: a session that waits for an advisory lock holds a snapshot that stops concurrent index builds.
async fn wait_for_turn(conn: &mut Conn) -> anyhow::Result<()> {
    for attempt in 1..=TRIES {
        let mine: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(ADVISORY_LOCK).fetch_one(&mut *conn).await?;
        if mine {
            return Ok(());
        }
        tracing::info!(attempt, "another process is migrating; waiting");
        tokio::time::sleep(backoff::pause(attempt, PAUSES.0, PAUSES.1)).await;
    }
    bail!("another process has been migrating through {TRIES} tries")
}

/// What is to be done about it.
fn explained(error: MigrateError) -> anyhow::Error {
    let is_edited = matches!(error, MigrateError::VersionMismatch(_));
    let error = anyhow::Error::new(error);
    if is_edited {
        return error.context("a file that landed is never edited: bring back what it was, and add another");
    }
    error
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<sqlx::Error>().and_then(code_of).as_deref() == Some("55P03") {
            return true;
        }
        cause = error.source();
    }
    false
}
