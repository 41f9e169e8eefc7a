//! Taking an old form out of reach, bringing it back, dropping it: one transaction each, which waits for no lock longer
//! than everybody can bear.
use super::{
    backfill::Plan,
    guards::{self, Guard},
    indexes,
    ledger::{self, Step, Taken},
    session,
};
use crate::{
    Conn,
    base::backoff,
    changes::{Change, History, Phase},
};
use anyhow::{Context, bail};
use secrecy::SecretString;
use sqlx::{Executor, error::DatabaseError};
use std::time::Duration;

/// Everybody waits behind whoever waits for a lock on their table, and for whoever holds it: no longer than this, also
/// where whoever does it is stopped or cut off.
const UNDER_LOCK: &str = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '1s'; \
                          SET LOCAL idle_in_transaction_session_timeout = '1s'";
/// Before that nobody waits.
const BEFORE_LOCK: &str = "SET LOCAL lock_timeout = '3s'";
/// Tries to get the locks.
const TRIES: u32 = 40;
/// Pauses between them grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Take the old form out of reach.
    Contract,
    /// Bring it back.
    Revert,
    /// Drop it for good.
    Drop,
}

/// Who asks, and why.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Only look.
    pub dry_run: bool,
    /// Told after each try that found its locks held by others: which it was, and how many there are.
    pub busy: fn(u32, u32),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What had to be proved.
    pub guards: Vec<Guard>,
    /// Whether it was done: only where all of them hold.
    pub done: bool,
    /// Tries that it took to get the locks.
    pub tries: u32,
}

impl Transition {
    const fn step(self) -> Step {
        match self {
            Self::Contract => Step::Contract,
            Self::Revert => Step::Revert,
            Self::Drop => Step::Drop,
        }
    }

    /// The phases from which it leads on.
    const fn from(self) -> &'static [Phase] {
        match self {
            Self::Contract => &[Phase::Expanded, Phase::Filled],
            Self::Revert | Self::Drop => &[Phase::Contracted],
        }
    }

    fn sql(self, change: &Change) -> Option<(&str, &[u8])> {
        match self {
            Self::Contract => change.contract.as_ref().map(|contract| (&*contract.sql, &*contract.checksum)),
            Self::Revert => change.contract.as_ref().map(|contract| (&*contract.undo, &*contract.checksum)),
            Self::Drop => change.drop.as_ref().map(|drop| (&*drop.sql, &*drop.checksum)),
        }
    }
}

/// Looks at the guards and, where all hold, does it. `programs` are those whose sessions count as old ones where they
/// are not written down.
///
/// # Errors
/// Where there is no such change or it has no such phase, and where the locks were not to be had.
pub async fn transition(
    database_url: &SecretString,
    (history, programs): (&History, &[&str]),
    number: i64,
    transition: Transition,
    asked: Asked<'_>,
) -> anyhow::Result<Outcome> {
    let all = || history.iter().filter(|c| c.contract.is_some()).map(|c| c.name.clone()).collect::<Vec<_>>().join(", ");
    let unknown = || format!("there is no change {number} with a contract; there are: {}", all());
    let change = history.get(number).filter(|change| change.contract.is_some()).with_context(unknown)?;
    let sql = transition.sql(change).with_context(|| format!("{} has no such step", change.name))?;
    let connector = session::connector(database_url).await?;
    let mut conn = connector.connect("schema", crate::postgres::Purpose::Work).await.context("can't connect")?;
    let known = (history, programs);
    let result = over(&mut conn, known, change, (transition, sql), asked).await;
    conn.close().await.ok();
    result
}

async fn over(
    conn: &mut Conn,
    known: (&History, &[&str]),
    change: &Change,
    (transition, (sql, checksum)): (Transition, (&str, &[u8])),
    asked: Asked<'_>,
) -> anyhow::Result<Outcome> {
    // The scan of a whole table comes before any lock.
    let mut tx = conn.begin().await?;
    let guards = match transition {
        Transition::Contract => guards::of_contract(&mut tx, known, change).await?,
        Transition::Revert => guards::of_revert(&mut tx, known, change).await?,
        Transition::Drop => guards::of_drop(&mut tx, known, change).await?,
    };
    let is_new = guards::is_new(&mut tx, change).await.unwrap_or(false);
    tx.rollback().await?;
    if asked.dry_run || guards.iter().any(|guard| !guard.holds) {
        return Ok(Outcome { guards, done: false, tries: 0 });
    }
    let taken = Taken { by: asked.by, reason: asked.reason, evidence: guards::as_json(&guards), checksum };
    for tries in 1..=TRIES {
        match attempt(conn, known, change, (transition, sql), &taken, is_new).await {
            Ok(Attempted::Done) => return Ok(Outcome { guards, done: true, tries }),
            Ok(Attempted::Refused(guards)) => return Ok(Outcome { guards, done: false, tries }),
            Ok(Attempted::Busy) => {}
            Err(error) => return Err(error).context("it failed; nothing of it was kept"),
        }
        tracing::info!(change = change.name, tries, "its locks were not to be had at once; trying again");
        (asked.busy)(tries, TRIES);
        tokio::time::sleep(backoff::pause(tries, PAUSES.0, PAUSES.1)).await;
    }
    bail!("no lock within {TRIES} tries of 100 ms; nothing of it was kept")
}

enum Attempted {
    Done,
    Busy,
    Refused(Vec<Guard>),
}

async fn attempt(
    conn: &mut Conn,
    known: (&History, &[&str]),
    change: &Change,
    (transition, sql): (Transition, &str),
    taken: &Taken<'_>,
    is_new: bool,
) -> anyhow::Result<Attempted> {
    let mut tx = conn.begin().await?;
    let not_done = match within(&mut tx, known, change, (transition, sql), taken, is_new).await {
        Ok(None) => {
            tx.commit().await?;
            return Ok(Attempted::Done);
        }
        Ok(Some(not_done)) => not_done,
        Err(error) if is_busy(&error) => Attempted::Busy,
        Err(error) => return Err(error.into()),
    };
    // At once: dropped, it would keep its locks until the connection is used again.
    tx.rollback().await?;
    Ok(not_done)
}

/// Does it, up to the commit; or gives why not.
async fn within(
    tx: &mut Conn,
    known: (&History, &[&str]),
    change: &Change,
    (transition, sql): (Transition, &str),
    taken: &Taken<'_>,
    is_new: bool,
) -> Result<Option<Attempted>, sqlx::Error> {
    tx.execute(BEFORE_LOCK).await?;
    if !ledger::may_step(tx).await? {
        return Ok(Some(Attempted::Busy));
    }
    if let Some(table) = change.table() {
        // A vacuum that holds the table gives way to whoever waits for a second, and nobody waits behind this one.
        tx.execute(format!("LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE").as_str()).await?;
        tx.execute(UNDER_LOCK).await?;
        // Nobody writes from here on: so what is looked at now still holds when it is done.
        tx.execute(format!("LOCK TABLE {table}").as_str()).await?;
    }
    let guards = guards::under_lock(tx, known, change, transition.from(), is_new).await?;
    if guards.iter().any(|guard| !guard.holds) {
        return Ok(Some(Attempted::Refused(guards)));
    }
    tx.execute(sql).await?;
    ledger::record(tx, change, transition.step(), taken).await?;
    Ok(None)
}

/// On a new database nothing is there that could need an old form: the change is over at once.
pub(super) async fn end_on_new(conn: &mut Conn, change: &Change) -> anyhow::Result<()> {
    let evidence = serde_json::json!({ "new database": "its tables are empty" });
    for statement in change.backfill.iter().flat_map(|backfill| &backfill.online) {
        indexes::drop_half_built(conn, statement).await?;
        conn.execute(statement.as_str()).await.with_context(|| change.name.clone())?;
    }
    let mut tx = conn.begin().await?;
    Plan::insert_done(&mut tx, change, &evidence).await?;
    for transition in [Transition::Contract, Transition::Drop] {
        let Some((sql, checksum)) = transition.sql(change) else { continue };
        tx.execute(sql).await.with_context(|| change.name.clone())?;
        let taken = Taken { by: "migrate", reason: "a new database", evidence: evidence.clone(), checksum };
        ledger::record(&mut tx, change, transition.step(), &taken).await?;
    }
    if change.contract.is_none() {
        ledger::begin_epoch(&mut tx).await?;
    }
    Ok(tx.commit().await?)
}

/// Somebody else has a lock, and waits for one of ours perhaps.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}
