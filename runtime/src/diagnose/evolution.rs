//! What changes of the schema ask of an operator: programs whose form is gone, backfills that stand still.
use super::Finding;
use crate::{
    Runtime,
    postgres::Purpose,
    schema::{self, backfill::Plan},
};
use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// A program that is started has written itself down by then.
const STARTS_WITHIN: Duration = Duration::from_secs(2);
/// A worker comes by more often than this, whatever it waits for.
const COMES_BY_WITHIN: TimeDelta = TimeDelta::seconds(30);
/// The last of those who paused a backfill: an operator, or the engine itself.
const PAUSED_BY: &str = "SELECT made_by FROM backfill_transitions WHERE change = $1 AND to_state = 'paused'
                         ORDER BY transition_id DESC LIMIT 1";

/// Looks at both.
pub(super) async fn look(runtime: &Runtime) -> anyhow::Result<Vec<Finding>> {
    let evolution = &runtime.pools().evolution;
    let conn = runtime.pools().connector.connect("diagnose", Purpose::Work).await;
    let mut conn = conn.context("the database does not answer")?;
    let mut outlived = schema::outlived(&mut conn, evolution.programs()).await?;
    if !outlived.is_empty() {
        // One that is just starting has sessions a moment before it is written down.
        tokio::time::sleep(STARTS_WITHIN).await;
        outlived = schema::outlived(&mut conn, evolution.programs()).await?;
    }
    let mut findings = Vec::new();
    for (one, gone) in outlived {
        let detail =
            format!("the form of the schema that it needs is gone, by {}: start a newer version", gone.join(", "));
        findings.push(Finding::new(format!("{} on {}", one.process, one.host), false, detail));
    }
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut conn).await?;
    for plan in Plan::all(&mut conn).await? {
        let by: Option<String> = match &*plan.state {
            "paused" => sqlx::query_scalar(PAUSED_BY).bind(plan.change).fetch_optional(&mut conn).await?,
            _ => None,
        };
        findings.extend(of_backfill(&plan, by.as_deref(), now));
    }
    conn.close().await.ok();
    Ok(findings)
}

/// What there is to say of one that is under way.
fn of_backfill(plan: &Plan, paused_by: Option<&str>, now: DateTime<Utc>) -> Option<Finding> {
    let what = format!("backfill {}", plan.name);
    let silent = plan.silent_for(now);
    match &*plan.state {
        "running" if silent > COMES_BY_WITHIN => Some(Finding::new(
            what,
            false,
            format!("no worker has come by for {} s: is that of backfills there?", silent.num_seconds()),
        )),
        "running" => Some(Finding::new(what, true, "runs")),
        "paused" if paused_by == Some(schema::backfill::ENGINE) => {
            Some(Finding::new(what, false, format!("has paused itself: {}", plan.why)))
        }
        "paused" => {
            let by = paused_by.unwrap_or("somebody");
            Some(Finding::by_operator(what, format!("paused by {by}: {}", plan.why)))
        }
        _ => None,
    }
}
