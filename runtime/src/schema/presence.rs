//! Which processes live, and which forms of the schema each can live with.
//!
//! A process that knows changes up to number N lives with every form up to N's newest, and needs the old form of what
//! comes after. It writes itself down before it does anything else, under a lock that excludes contracts: either the
//! contract sees it and refuses, or it sees the contract and refuses to start. Sessions of a program that never wrote
//! itself down are an old version's, which had no such rows.
use super::ledger;
use crate::{
    Conn,
    base::{host, ids},
    changes::{Change, Evolution, History, Known, Phase},
};
use chrono::{DateTime, Utc};
use std::fmt;
use uuid::Uuid;

/// A process that was not seen for this long, and has no session, is gone.
///
/// Longer than it takes all of them to come back after a failover: a process that can't say that it lives does live.
const SILENT_FOR: &str = "60 s";
/// And nobody wants to know of it after this.
const FORGOTTEN_AFTER: &str = "1 day";

/// This process, as it is written down.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    id: Uuid,
    process: String,
}

/// Where its calls have come, as of a heartbeat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beat {
    /// The epoch that all its transactions go by.
    pub(crate) epoch: i64,
    /// Of the calls that a backfill must not slow, over the last seconds; none without such calls.
    pub(crate) p99_ms: Option<f64>,
}

/// A process that lives.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Living {
    /// Its program.
    pub process: String,
    /// Its machine and its number there; of one that never said so, where its session comes from, and that one's number.
    pub host: String,
    /// It knows changes up to this number; 0 for one that never said so.
    pub knows: i64,
    /// The epoch of phases that all its transactions go by; 0 for one that never said so.
    pub epoch: i64,
    /// When it was last seen.
    pub seen_at: DateTime<Utc>,
}

impl fmt::Display for Living {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.process, self.host)?;
        if self.knows == 0 {
            f.write_str(", an older version")
        } else {
            write!(f, ", which knows up to {}", self.knows)
        }
    }
}

impl Presence {
    pub(crate) fn new(process: &str) -> Self {
        Self { id: ids::random(), process: process.to_owned() }
    }

    /// The name of this process's sessions in PostgreSQL.
    pub(crate) fn session_name(&self) -> String {
        let id = self.id.simple().to_string();
        format!("{} {}", self.process, &id[..8])
    }

    /// Writes the process down and reads the phases; or gives what has taken away the form of the schema that it needs.
    pub(crate) async fn register(
        &self,
        conn: &mut Conn,
        history: &History,
    ) -> Result<Result<Known, Vec<String>>, sqlx::Error> {
        let mut tx = conn.begin().await?;
        sqlx::query("SET LOCAL lock_timeout = '5s'").execute(&mut *tx).await?;
        ledger::hold_off_steps(&mut tx).await?;
        let gone = ledger::contracted_above(&mut tx, history.newest()).await?;
        if !gone.is_empty() {
            return Ok(Err(gone));
        }
        let known = ledger::phases(&mut tx, history).await?;
        let host = format!("{}:{}", host::name(), std::process::id());
        let insert = "INSERT INTO processes (process_id, process, version, host, knows, epoch)
                      VALUES ($1, $2, $3, $4, $5, $6)
                      ON CONFLICT (process_id) DO UPDATE SET seen_at = clock_timestamp(), left_at = NULL";
        let insert = sqlx::query(insert).bind(self.id).bind(&self.process).bind(env!("CARGO_PKG_VERSION")).bind(host);
        insert.bind(history.newest()).bind(known.epoch).execute(&mut *tx).await?;
        let forget = format!("DELETE FROM processes WHERE seen_at < clock_timestamp() - interval '{FORGOTTEN_AFTER}'");
        sqlx::query(&forget).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Ok(known))
    }

    /// Says that it lives; false where it is not written down, and must register again.
    pub(crate) async fn renew(&self, conn: &mut Conn, beat: Beat) -> Result<bool, sqlx::Error> {
        let update = "UPDATE processes SET seen_at = clock_timestamp(), epoch = $2, p99_ms = $3
                      WHERE process_id = $1 AND left_at IS NULL";
        let update = sqlx::query(update).bind(self.id).bind(beat.epoch).bind(beat.p99_ms);
        Ok(update.execute(conn).await?.rows_affected() > 0)
    }

    /// Says that it ends. The row stays for a day: sessions that are just closing are no unknown program's.
    pub(crate) async fn leave(&self, conn: &mut Conn) -> Result<(), sqlx::Error> {
        let update = "UPDATE processes SET left_at = clock_timestamp() WHERE process_id = $1";
        sqlx::query(update).bind(self.id).execute(conn).await.map(drop)
    }
}

/// Everybody who lives: those written down, and sessions of `programs` that nobody has written down.
pub(crate) async fn living(conn: &mut Conn, programs: &[&str]) -> Result<Vec<Living>, sqlx::Error> {
    let read = format!(
        "WITH sessions AS (
           SELECT application_name AS name, max(coalesce(host(client_addr), 'this machine') || ', session ' || pid) AS host,
                  split_part(application_name, ' ', 1) AS process
           FROM pg_stat_activity WHERE datname = current_database() GROUP BY application_name),
         written AS (
           SELECT process, host, knows, epoch, seen_at, left_at,
                  process || ' ' || left(replace(process_id::text, '-', ''), 8) AS name
           FROM processes)
         SELECT process, host, knows, epoch, seen_at FROM written w
         WHERE left_at IS NULL AND (seen_at > clock_timestamp() - interval '{SILENT_FOR}'
                                    OR EXISTS (SELECT FROM sessions s WHERE s.name = w.name))
         UNION ALL
         SELECT process, host, 0, 0, clock_timestamp() FROM sessions s
         WHERE process = ANY ($1) AND NOT EXISTS (SELECT FROM written w WHERE w.name = s.name)
         ORDER BY process, host"
    );
    sqlx::query_as(&read).bind(programs).fetch_all(conn).await
}

/// Those who live and need a form of the schema that is gone, each with what took it away: they answer, and fail at what
/// needs it. Only programs of before there were such rows can be among them for longer than a moment: others end.
pub(crate) async fn outlived(conn: &mut Conn, programs: &[&str]) -> Result<Vec<(Living, Vec<String>)>, sqlx::Error> {
    let mut found = Vec::new();
    for one in living(conn, programs).await? {
        let gone = ledger::contracted_above(conn, one.knows).await?;
        if !gone.is_empty() {
            found.push((one, gone));
        }
    }
    Ok(found)
}

/// Notes how far the meters of old-form writes have come, and since when they stand there: of those old forms that are
/// within reach.
pub(crate) async fn sample_meters(conn: &mut Conn, evolution: &Evolution) -> Result<(), sqlx::Error> {
    let is_written = |change: &&Change| evolution.phase(change.number) < Phase::Contracted;
    for change in evolution.history().iter().filter(is_written) {
        let Some(meter) = change.contract.as_ref().and_then(|contract| contract.meter.as_deref()) else { continue };
        let Some(value) = meter_value(conn, meter).await? else { continue };
        let note = "INSERT INTO schema_meters (change, value) VALUES ($1, $2)
                    ON CONFLICT (change) DO UPDATE SET value = $2, changed_at = clock_timestamp()
                    WHERE schema_meters.value <> $2";
        sqlx::query(note).bind(change.number).bind(value).execute(&mut *conn).await?;
    }
    Ok(())
}

/// How often a meter was moved; none where it is not there.
pub(crate) async fn meter_value(conn: &mut Conn, meter: &str) -> Result<Option<i64>, sqlx::Error> {
    let is_there: bool =
        sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(meter).fetch_one(&mut *conn).await?;
    if !is_there {
        return Ok(None);
    }
    let read = format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {meter}");
    sqlx::query_scalar(&read).fetch_optional(conn).await
}
