//! What must be proved before an old form is taken away, each with what speaks for it.
use super::{
    backfill::{differing, differing_row},
    ledger,
    presence::{self, Living, meter_value},
};
use crate::{
    Conn,
    changes::{Change, Contract, History, Phase},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use std::time::Duration;

/// Rows that differ are looked for over this long, at most.
const SCAN_TIMEOUT: &str = "SET LOCAL statement_timeout = '10min'";

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// What must be so.
    pub name: &'static str,
    /// Whether it is.
    pub holds: bool,
    /// What speaks for it, or against it.
    pub evidence: String,
}

impl Guard {
    fn new(name: &'static str, holds: bool, evidence: impl Into<String>) -> Self {
        Self { name, holds, evidence: evidence.into() }
    }
}

/// The guards, as what is kept with the step.
pub(super) fn as_json(guards: &[Guard]) -> Value {
    guards.iter().map(|guard| (guard.name.to_owned(), json!(guard.evidence))).collect::<serde_json::Map<_, _>>().into()
}

/// Looks at what may be looked at as often as one likes, and once more under the locks.
pub(super) async fn cheap(
    conn: &mut Conn,
    (history, programs): (&History, &[&str]),
    change: &Change,
    quiet: Option<Duration>,
) -> Result<Vec<Guard>, sqlx::Error> {
    let contract = change.contract.as_ref();
    let mut guards = Vec::new();
    for constraint in contract.map(|contract| contract.valid.as_slice()).unwrap_or_default() {
        guards.push(validated(conn, constraint).await?);
    }
    let epoch = ledger::phases(conn, history).await?.epoch;
    guards.extend(nobody_old(&presence::living(conn, programs).await?, change, epoch));
    if let Some(contract) = contract {
        guards.extend(not_written(conn, change, contract, quiet.unwrap_or(contract.quiet)).await?);
    }
    Ok(guards)
}

/// Looks once more with the locks held, at what costs nothing.
pub(super) async fn under_lock(
    conn: &mut Conn,
    known: (&History, &[&str]),
    change: &Change,
    from: &[Phase],
    is_new: bool,
) -> Result<Vec<Guard>, sqlx::Error> {
    let mut guards = vec![phase(conn, known.0, change, from).await?];
    if from.contains(&Phase::Filled) {
        if !is_new {
            guards.push(filled(conn, change).await?);
        }
        guards.extend(cheap(conn, known, change, is_new.then_some(Duration::ZERO)).await?);
    }
    Ok(guards)
}

/// Looks at all of it before a contract. Where the table is empty and its old form was never written, nothing is to be
/// waited for.
pub(super) async fn of_contract(
    conn: &mut Conn,
    known: (&History, &[&str]),
    change: &Change,
) -> Result<Vec<Guard>, sqlx::Error> {
    let mut guards = vec![phase(conn, known.0, change, &[Phase::Expanded, Phase::Filled]).await?];
    if !guards[0].holds {
        // What is left of it has another form already: nothing else can be asked of that.
        return Ok(guards);
    }
    let is_new = is_new(conn, change).await?;
    if !is_new {
        guards.push(filled(conn, change).await?);
    }
    if let Some(backfill) = &change.backfill {
        sqlx::query(SCAN_TIMEOUT).execute(&mut *conn).await?;
        let count = differing(conn, backfill).await?;
        let row = if count == 0 { None } else { differing_row(conn, backfill).await? };
        let row = row.map(|key| format!(", such as {} ({key})", backfill.key.join(", "))).unwrap_or_default();
        guards.push(Guard::new("no row differs", count == 0, format!("{count} rows of {}{row}", backfill.table)));
    }
    guards.extend(cheap(conn, known, change, is_new.then_some(Duration::ZERO)).await?);
    Ok(guards)
}

/// Looks at all of it before a drop.
pub(super) async fn of_drop(
    conn: &mut Conn,
    known: (&History, &[&str]),
    change: &Change,
) -> Result<Vec<Guard>, sqlx::Error> {
    let mut guards = vec![phase(conn, known.0, change, &[Phase::Contracted]).await?, same_file(conn, change).await?];
    if let Some(drop) = &change.drop {
        let since = "SELECT max(taken_at), clock_timestamp() FROM schema_steps WHERE change = $1 AND step = 'contract'";
        let (since, now): (Option<DateTime<Utc>>, DateTime<Utc>) =
            sqlx::query_as(since).bind(change.number).fetch_one(&mut *conn).await?;
        let age = since.map(|since| now - since).unwrap_or_default();
        let bakes = TimeDelta::from_std(drop.bakes).unwrap_or(TimeDelta::MAX);
        let evidence = format!("out of reach for {}, asked for {}", span(age), span(bakes));
        let holds = age >= bakes || is_new(conn, change).await?;
        guards.push(Guard::new("baked", holds, evidence));
    }
    let epoch = ledger::phases(conn, known.0).await?.epoch;
    guards.extend(nobody_old(&presence::living(conn, known.1).await?, change, epoch));
    Ok(guards)
}

/// Looks at all of it before a contract is undone.
pub(super) async fn of_revert(
    conn: &mut Conn,
    known: (&History, &[&str]),
    change: &Change,
) -> Result<Vec<Guard>, sqlx::Error> {
    let mut guards = vec![phase(conn, known.0, change, &[Phase::Contracted]).await?, same_file(conn, change).await?];
    let applied = super::session::applied_versions(conn).await?;
    let builds_on = |other: &&Change| other.requires.contains(&change.number) && applied.contains(&other.number);
    let others: Vec<_> = known.0.iter().filter(builds_on).map(|other| other.name.as_str()).collect();
    let evidence = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
    guards.push(Guard::new("no later change builds on it", others.is_empty(), evidence));
    Ok(guards)
}

/// What was contracted is what this program would bring back or drop.
async fn same_file(conn: &mut Conn, change: &Change) -> Result<Guard, sqlx::Error> {
    let read =
        "SELECT checksum FROM schema_steps WHERE change = $1 AND step = 'contract' ORDER BY step_id DESC LIMIT 1";
    let taken: Option<Vec<u8>> = sqlx::query_scalar(read).bind(change.number).fetch_optional(conn).await?;
    let is_same = taken.is_none_or(|taken| change.contract.as_ref().is_some_and(|known| known.checksum == taken));
    let evidence = if is_same { "as it was contracted" } else { "its contract was another file than this program's" };
    Ok(Guard::new("its files are the same", is_same, evidence))
}

async fn phase(conn: &mut Conn, history: &History, change: &Change, allowed: &[Phase]) -> Result<Guard, sqlx::Error> {
    let applied = "SELECT EXISTS (SELECT FROM _sqlx_migrations WHERE version = $1 AND success)";
    if !sqlx::query_scalar::<_, bool>(applied).bind(change.number).fetch_one(&mut *conn).await? {
        return Ok(Guard::new("its phase", false, "it is not expanded yet"));
    }
    let phase = ledger::phases(conn, history).await?.by_change.get(&change.number).copied();
    let phase = phase.unwrap_or(Phase::Expanded);
    Ok(Guard::new("its phase", allowed.contains(&phase), format!("it is {phase}")))
}

/// The table is empty, and nothing was ever written in the old form: a new database.
pub(super) async fn is_new(conn: &mut Conn, change: &Change) -> Result<bool, sqlx::Error> {
    let Some(table) = change.table() else { return Ok(false) };
    // Who may not look at the table may still ask how far a change has come.
    let may_look = sqlx::query_scalar("SELECT has_table_privilege($1, 'SELECT')").bind(table);
    if !may_look.fetch_one(&mut *conn).await? {
        return Ok(false);
    }
    let read = format!("SELECT EXISTS (SELECT FROM {table})");
    if sqlx::query_scalar::<_, bool>(&read).fetch_one(&mut *conn).await? {
        return Ok(false);
    }
    let Some(meter) = change.contract.as_ref().and_then(|contract| contract.meter.as_deref()) else { return Ok(true) };
    Ok(meter_value(conn, meter).await?.unwrap_or(0) == 0)
}

async fn filled(conn: &mut Conn, change: &Change) -> Result<Guard, sqlx::Error> {
    let name = "every row is filled";
    if change.backfill.is_none() {
        return Ok(Guard::new(name, true, "it has no backfill"));
    }
    let read = "SELECT state, rows_changed, finished_at FROM backfills WHERE change = $1";
    let found: Option<(String, i64, Option<DateTime<Utc>>)> =
        sqlx::query_as(read).bind(change.number).fetch_optional(conn).await?;
    Ok(match found {
        None => Guard::new(name, false, "its backfill was never started"),
        Some((state, rows, Some(at))) if state == "done" => {
            Guard::new(name, true, format!("{rows} rows, done at {}", at.format("%Y-%m-%dT%H:%M:%SZ")))
        }
        Some((state, ..)) => Guard::new(name, false, format!("its backfill is {state}")),
    })
}

async fn validated(conn: &mut Conn, constraint: &str) -> Result<Guard, sqlx::Error> {
    let (table, name) = constraint.split_once('.').unwrap_or(("", constraint));
    let read = "SELECT convalidated FROM pg_constraint WHERE conrelid = to_regclass($1) AND conname = $2";
    let found: Option<bool> = sqlx::query_scalar(read).bind(table).bind(name).fetch_optional(conn).await?;
    let said = match found {
        None => "is not there",
        Some(false) => "is not validated",
        Some(true) => "holds for every row, as PostgreSQL found",
    };
    Ok(Guard::new("PostgreSQL proved it", found == Some(true), format!("{constraint} {said}")))
}

fn nobody_old(living: &[Living], change: &Change, epoch: i64) -> [Guard; 2] {
    let named = |is_meant: &dyn Fn(&Living) -> bool| {
        living.iter().filter(|process| is_meant(process)).map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let old = named(&|process| process.knows < change.number);
    let behind = named(&|process| process.knows >= change.number && process.epoch < epoch);
    let all = format!("{} processes live, and all know it", living.len());
    [
        Guard::new("nobody needs the old form", old.is_empty(), if old.is_empty() { all } else { old }),
        Guard::new(
            "everybody goes by the new form",
            behind.is_empty(),
            if behind.is_empty() { format!("epoch {epoch}") } else { format!("not yet since epoch {epoch}: {behind}") },
        ),
    ]
}

async fn not_written(
    conn: &mut Conn,
    change: &Change,
    contract: &Contract,
    quiet: Duration,
) -> Result<Option<Guard>, sqlx::Error> {
    let name = "nobody writes the old form";
    let Some(meter) = &contract.meter else { return Ok(None) };
    let Some(value) = meter_value(conn, meter).await? else {
        return Ok(Some(Guard::new(name, false, format!("its meter {meter} is not there"))));
    };
    let read = "SELECT value, changed_at, clock_timestamp() FROM schema_meters WHERE change = $1";
    let noted: Option<(i64, DateTime<Utc>, DateTime<Utc>)> =
        sqlx::query_as(read).bind(change.number).fetch_optional(conn).await?;
    let asked = TimeDelta::from_std(quiet).unwrap_or(TimeDelta::MAX);
    Ok(Some(match noted {
        _ if quiet.is_zero() => Guard::new(name, value == 0, format!("{value} such writes ever")),
        None => Guard::new(name, false, format!("{meter} was never looked at: no process of this version has run")),
        Some((noted, ..)) if noted != value => Guard::new(name, false, format!("{meter} moves: {noted}, now {value}")),
        Some((_, since, now)) => {
            let still = now - since;
            let evidence = format!("{meter} stands at {value} for {}, asked for {}", span(still), span(asked));
            Guard::new(name, still >= asked, evidence)
        }
    }))
}

fn span(span: TimeDelta) -> String {
    let s = span.num_seconds();
    if s < 120 { format!("{s} s") } else { format!("{} min", s / 60) }
}
