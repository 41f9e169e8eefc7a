//! Migrations: applied by an operator's tool over a connection of its own; compared, never applied, by services.
use crate::{backoff, db};
use anyhow::{Context, bail};
use secrecy::SecretString;
use sqlx::{Connection, PgConnection, PgPool, migrate::Migrator};
use std::{borrow::Cow, collections::HashMap, time::Duration};

/// How long a migration waits for a lock before it lets everyone else pass and tries again.
const LOCK_TIMEOUT_MS: u32 = 500;
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

/// What the database lacks for a binary built with `migrator`. Empty when it has all of it, or more.
pub async fn gaps(pool: &PgPool, migrator: &Migrator) -> Result<Vec<Gap>, sqlx::Error> {
    let applied =
        match sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success").fetch_all(pool).await {
            Ok(rows) => rows,
            Err(error) if is_undefined_table(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
    let applied: HashMap<i64, Vec<u8>> = applied.into_iter().collect();
    Ok(migrator.iter().filter_map(|known| gap(&applied, known)).collect())
}

fn gap(applied: &HashMap<i64, Vec<u8>>, known: &sqlx::migrate::Migration) -> Option<Gap> {
    match applied.get(&known.version) {
        None => Some(Gap::Missing(name(known))),
        Some(checksum) if checksum[..] != known.checksum[..] => Some(Gap::Changed(name(known))),
        Some(_) => None,
    }
}

/// `NNNN_verb_noun`, as the file is called.
fn name(migration: &sqlx::migrate::Migration) -> String {
    format!("{:04}_{}", migration.version, migration.description.replace(' ', "_"))
}

fn is_undefined_table(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code) == Some(Cow::Borrowed("42P01"))
}

/// Creates the database that the URL names, unless it is there.
pub async fn create_database(database_url: &SecretString) -> anyhow::Result<()> {
    use secrecy::ExposeSecret;
    use sqlx::migrate::MigrateDatabase;
    let url = database_url.expose_secret();
    if !sqlx::Postgres::database_exists(url).await.context("can't look for the database")? {
        sqlx::Postgres::create_database(url).await.context("can't create the database")?;
    }
    Ok(())
}

/// Applies what is missing and returns its names, in order.
///
/// Works over one connection that is closed afterwards, whatever happens, so that no session lock is left behind.
pub async fn migrate(database_url: &SecretString, migrator: &'static Migrator) -> anyhow::Result<Vec<String>> {
    let options = db::connect_options(database_url)?
        .application_name("gavel-migrate")
        .options([("lock_timeout", LOCK_TIMEOUT_MS.to_string())]);
    let mut conn = PgConnection::connect_with(&options).await.context("can't connect to migrate")?;
    let result = migrate_over(&mut conn, migrator).await;
    conn.close().await.ok();
    result
}

async fn migrate_over(conn: &mut PgConnection, migrator: &'static Migrator) -> anyhow::Result<Vec<String>> {
    wait_for_turn(conn).await?;
    let before = applied_versions(conn).await?;
    let quiet = Migrator {
        migrations: Cow::Borrowed(&migrator.migrations),
        ignore_missing: true,
        // The turn is taken above by polling: sqlx would block on it.
        locking: false,
        ..Migrator::DEFAULT
    };
    for attempt in 1..=TRIES {
        match quiet.run_direct(conn).await {
            Ok(()) => {
                return Ok(migrator.iter().filter(|m| !before.contains(&m.version)).map(name).collect());
            }
            Err(error) if attempt < TRIES && is_lock_timeout(&error) => {
                tracing::warn!(attempt, "a lock was not granted within {LOCK_TIMEOUT_MS} ms; trying again");
                tokio::time::sleep(backoff::pause(attempt, PAUSES.0, PAUSES.1)).await;
            }
            Err(error) => return Err(error).context("a migration failed; nothing of it was kept"),
        }
    }
    bail!("no lock within {TRIES} tries of {LOCK_TIMEOUT_MS} ms; nothing of the migration was kept")
}

/// Polls, never blocks: a session that waits for an advisory lock holds a snapshot that stops concurrent index builds.
async fn wait_for_turn(conn: &mut PgConnection) -> anyhow::Result<()> {
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

async fn applied_versions(conn: &mut PgConnection) -> Result<Vec<i64>, sqlx::Error> {
    match sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success").fetch_all(conn).await {
        Err(error) if is_undefined_table(&error) => Ok(Vec::new()),
        result => result,
    }
}

fn is_lock_timeout(error: &sqlx::migrate::MigrateError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let sql = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        if sql.and_then(sqlx::error::DatabaseError::code) == Some(Cow::Borrowed("55P03")) {
            return true;
        }
        cause = error.source();
    }
    false
}
