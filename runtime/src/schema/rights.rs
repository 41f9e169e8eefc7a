//! What each group of roles may do with which table.
//!
//! The runtime's own tables are in [`OWN`]; an application adds those that are its own. They are granted whenever the
//! schema is brought up to date, where the groups are there: an installation whose programs own everything has none.
use super::session::{applied_versions, connector};
use crate::{Conn, postgres::Purpose};
use anyhow::{Context, bail};
use secrecy::SecretString;
use sqlx::{Executor, migrate::Migrator};

/// The rights at a table, or a sequence, of each group: S, I, U and D for SELECT, INSERT, UPDATE and DELETE; of a
/// sequence S and U for SELECT and USAGE. What is not said is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Its name.
    pub table: &'static str,
    /// Of programs that answer calls.
    pub services: &'static str,
    /// Of programs that run jobs and consume messages.
    pub workers: &'static str,
    /// Of people who look whether everything is well.
    pub operators: &'static str,
}

/// Any constant: "GAVR".
const GRANT_LOCK: i64 = 0x4741_5652;

/// A line of the table: its name, and what services, workers and operators may do.
pub const fn at(table: &'static str, services: &'static str, workers: &'static str, operators: &'static str) -> Rights {
    Rights { table, services, workers, operators }
}

/// At the tables that the runtime itself keeps.
pub const OWN: &[Rights] = &[
    at("_sqlx_migrations", "S", "S", "S"),
    at("idempotency_keys", "SI", "SD", ""),
    at("outbox", "I", "SIUD", "S"),
    at("outbox_shards", "", "SU", ""),
    at("mq_msgs", "SIUD", "SIUD", "S"),
    at("mq_payloads", "SID", "SIUD", ""),
    at("dead_jobs", "SID", "SID", "S"),
    at("parked_messages", "SUD", "SIUD", "S"),
    at("job_queues", "SIU", "SIU", "S"),
    at("job_cancellations", "SIUD", "SD", "S"),
    at("job_claims", "S", "SIUD", "S"),
    at("job_loads", "S", "SIUD", "S"),
    at("job_workers", "S", "SIUD", "S"),
    at("inbox", "", "SID", ""),
    at("schedule_ticks", "", "SIU", ""),
    at("key_documents", "SIU", "", ""),
    at("processes", "SIUD", "SIUD", "S"),
    at("schema_epoch", "S", "S", "S"),
    at("schema_steps", "S", "S", "S"),
    at("schema_meters", "SIU", "SIU", "S"),
    at("backfills", "SIU", "S", "S"),
    at("backfill_transitions", "SI", "S", "S"),
    at("operator_actions", "I", "", "S"),
];

/// Grants them to the groups `APP_services`, `APP_workers` and `APP_operators`; false where there are no such groups, or
/// the schema is newer than `migrator`: then a newer version has granted what is right for it.
///
/// # Errors
/// Where the session does not own the tables.
pub async fn grant(
    database_url: &SecretString,
    app: &str,
    migrator: &Migrator,
    rights: &[Rights],
) -> anyhow::Result<bool> {
    let connector = connector(database_url).await?;
    let mut conn = connector.connect("schema", Purpose::Work).await.context("can't connect to grant rights")?;
    let granted = grant_over(&mut conn, app, migrator, rights).await;
    conn.close().await.ok();
    granted
}

async fn grant_over(conn: &mut Conn, app: &str, migrator: &Migrator, rights: &[Rights]) -> anyhow::Result<bool> {
    let groups = ["services", "workers", "operators"].map(|group| format!("{app}_{group}"));
    let there = "SELECT count(*) FROM pg_roles WHERE rolname = ANY ($1)";
    let there: i64 = sqlx::query_scalar(there).bind(groups.as_slice()).fetch_one(&mut *conn).await?;
    let newest = migrator.iter().map(|migration| migration.version).max();
    if there == 0 || applied_versions(conn).await?.into_iter().max() > newest {
        return Ok(false);
    }
    if there < 3 {
        bail!("of the roles {} some are missing: run the statements that make them again", groups.join(", "));
    }
    let mut tx = conn.begin().await?;
    // Two who grant at once would change the same rows of the catalogue.
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(GRANT_LOCK).execute(&mut *tx).await?;
    tx.execute(format!("GRANT USAGE ON SCHEMA public TO {}", groups.join(", ")).as_str()).await?;
    for line in OWN.iter().chain(rights) {
        grant_line(&mut tx, &groups, line).await.with_context(|| format!("rights at {}", line.table))?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Grants what a line says, and nothing else. What was dropped, at the end of a change, needs no rights.
async fn grant_line(conn: &mut Conn, groups: &[String; 3], line: &Rights) -> anyhow::Result<()> {
    let kind = "SELECT relkind = 'S' FROM pg_class WHERE oid = to_regclass($1)";
    let kind: Option<bool> = sqlx::query_scalar(kind).bind(line.table).fetch_optional(&mut *conn).await?;
    let Some(is_sequence) = kind else { return Ok(()) };
    let what = format!("{} {}", if is_sequence { "SEQUENCE" } else { "TABLE" }, line.table);
    conn.execute(format!("REVOKE ALL ON {what} FROM {}", groups.join(", ")).as_str()).await?;
    for (group, letters) in groups.iter().zip([line.services, line.workers, line.operators]) {
        let words: Vec<_> = letters.chars().map(|letter| word(letter, is_sequence)).collect::<anyhow::Result<_>>()?;
        if !words.is_empty() {
            conn.execute(format!("GRANT {} ON {what} TO {group}", words.join(", ")).as_str()).await?;
        }
    }
    Ok(())
}

fn word(letter: char, is_sequence: bool) -> anyhow::Result<&'static str> {
    Ok(match letter {
        'S' => "SELECT",
        'I' => "INSERT",
        'U' if is_sequence => "USAGE",
        'U' => "UPDATE",
        'D' => "DELETE",
        _ => bail!("{letter} is no right; allowed: S, I, U, D"),
    })
}
