//! Every change that is not over, its phase, and what it waits for.
use super::{backfill::Plan, guards, ledger, session};
use crate::{
    Conn,
    changes::{Change, History, Phase},
};
use anyhow::Context;
use secrecy::SecretString;

/// How far one change has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// `NNNN_verb_noun`.
    pub name: String,
    /// None where it is not even expanded.
    pub phase: Option<Phase>,
    /// Whether there is anything left to do.
    pub is_over: bool,
    /// What is to be done next.
    pub next: &'static str,
    /// What that waits for; empty where it could be done now.
    pub waits_for: Vec<String>,
}

/// Looks at all changes.
pub async fn status(
    database_url: &SecretString,
    (history, programs): (&History, &[&str]),
) -> anyhow::Result<Vec<Status>> {
    let connector = session::connector(database_url).await?;
    let mut conn = connector.connect("schema", crate::postgres::Purpose::Work).await.context("can't connect")?;
    let result = over(&mut conn, history, programs).await;
    conn.close().await.ok();
    result
}

async fn over(conn: &mut Conn, history: &History, programs: &[&str]) -> anyhow::Result<Vec<Status>> {
    let applied = session::applied_versions(conn).await?;
    let has_ledger: bool =
        sqlx::query_scalar("SELECT to_regclass('schema_steps') IS NOT NULL").fetch_one(&mut *conn).await?;
    let (phases, plans) = if has_ledger {
        (ledger::phases(conn, history).await?.by_change, Plan::all(&mut *conn).await?)
    } else {
        Default::default()
    };
    let mut all = Vec::new();
    for change in history.iter() {
        let phase = applied.contains(&change.number).then(|| phases.get(&change.number).copied());
        let phase = phase.map(|phase| phase.unwrap_or(Phase::Filled));
        let plan = plans.iter().find(|plan| plan.change == change.number);
        all.push(one(conn, (history, programs), change, phase, plan).await?);
    }
    Ok(all)
}

async fn one(
    conn: &mut Conn,
    known: (&History, &[&str]),
    change: &Change,
    phase: Option<Phase>,
    plan: Option<&Plan>,
) -> anyhow::Result<Status> {
    let (is_over, next, waits_for) = match phase {
        None => (false, "expand", Vec::new()),
        Some(Phase::Expanded) => (false, "backfill", waits_of(plan)),
        Some(Phase::Filled) if change.contract.is_none() => (true, "", Vec::new()),
        Some(Phase::Filled) => (false, "contract", unproved(guards::cheap(conn, known, change, None).await?)),
        Some(Phase::Contracted) if change.drop.is_none() => (true, "", Vec::new()),
        Some(Phase::Contracted) => (false, "drop", unproved(guards::of_drop(conn, known, change).await?)),
        Some(Phase::Dropped) => (true, "", Vec::new()),
    };
    Ok(Status { name: change.name.clone(), phase, is_over, next, waits_for })
}

fn unproved(guards: Vec<guards::Guard>) -> Vec<String> {
    let open = guards.into_iter().filter(|guard| !guard.holds);
    open.map(|guard| format!("{}: {}", guard.name, guard.evidence)).collect()
}

fn waits_of(plan: Option<&Plan>) -> Vec<String> {
    match plan {
        None => vec!["somebody to start it".to_owned()],
        Some(plan) if !plan.throttled_by.is_empty() => vec![plan.throttled_by.clone()],
        Some(plan) if plan.why.is_empty() => vec![format!("its backfill, which is {}", plan.state)],
        Some(plan) => vec![format!("its backfill, which is {}: {}", plan.state, plan.why)],
    }
}
