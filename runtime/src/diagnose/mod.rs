//! What an operator asks first: does everything answer, what has piled up, what stands still?
mod broker;
mod evolution;

use crate::{
    App, Runtime,
    config::Backends,
    context::{health::Check, runtime::Role},
    postgres::{Archive, Follower, Standby},
    process::{
        health::{Looker, Needs},
        sample_backlog,
    },
    triggers::{job, reconcile},
};
use std::sync::atomic::Ordering;

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What.
    pub what: String,
    /// True if it is as it should be, or as an operator wanted it.
    pub ok: bool,
    /// True if it is what an operator did: nothing is wrong, and somebody may have forgotten it.
    pub by_operator: bool,
    /// The figure, or what is wrong.
    pub detail: String,
}

impl Finding {
    fn new(what: impl Into<String>, ok: bool, detail: impl Into<String>) -> Self {
        Self { what: what.into(), ok, by_operator: false, detail: detail.into() }
    }

    fn by_operator(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { by_operator: true, ..Self::new(what, true, detail) }
    }
}

/// Looks after which a standby that follows would have been seen to.
const LOOKS_AT_STANDBY: u32 = 4;
/// An outbox this old means that the relay does not keep up.
const LATE_OUTBOX_MS: i64 = 10_000;

/// Looks at every dependency, at every backlog, and at whoever should be working on it.
pub async fn diagnose(app: App, backends: &Backends) -> anyhow::Result<Vec<Finding>> {
    let app = app.checked()?;
    let runtime = app.runtime(backends, "diagnose", Role::Observer)?;
    let ready = Looker::new(Needs::DatabaseAndBroker).look(&runtime).await;
    let mut findings = vec![
        dependency("database", &ready.database),
        dependency("schema", &ready.schema),
        dependency("broker", &ready.broker),
        dependency("cache", &ready.cache),
    ];
    let has_database = ready.database.up && ready.schema.up;
    if let Some(standby) = runtime.pools().standby.clone() {
        findings.push(follows(&runtime, standby).await);
    }
    if has_database {
        findings.push(archive(&runtime).await?);
        findings.extend(backlogs(&runtime).await?);
        findings.extend(queues(&runtime).await?);
        findings.extend(overdue(&runtime, app.reconcilers()).await?);
        findings.extend(evolution::look(&runtime).await?);
    }
    if ready.broker.up {
        findings.extend(broker::look(&runtime, has_database).await?);
    }
    runtime.pools().close().await;
    Ok(findings)
}

/// How many messages wait for one of the application's consumers; none where its queue is not there.
///
/// # Errors
/// When the broker does not answer, or will not say.
pub async fn waiting(app: App, backends: &Backends, consumer: &str) -> anyhow::Result<u32> {
    let runtime = app.checked()?.runtime(backends, "diagnose", Role::Observer)?;
    let waiting = broker::waiting(&runtime, consumer).await;
    runtime.pools().close().await;
    waiting
}

fn dependency(what: &str, check: &Check) -> Finding {
    Finding::new(what, check.up, check.problem.clone().unwrap_or_else(|| "answers".to_owned()))
}

async fn backlogs(runtime: &Runtime) -> anyhow::Result<Vec<Finding>> {
    sample_backlog(runtime).await?;
    let backlog = &runtime.metrics().backlog;
    let (events, age_ms) =
        (backlog.outbox_events.load(Ordering::Relaxed), backlog.outbox_oldest_age_ms.load(Ordering::Relaxed));
    let (due, dead) = (backlog.jobs_due.load(Ordering::Relaxed), backlog.jobs_dead.load(Ordering::Relaxed));
    let held = sqlx::query!(
        r#"SELECT count(*) AS "count!", (SELECT last_error FROM outbox WHERE retry_at IS NOT NULL
                                         ORDER BY key, version LIMIT 1) AS why
           FROM (SELECT FROM outbox WHERE retry_at IS NOT NULL LIMIT 10001) h"#
    );
    let held = held.fetch_one(&runtime.pools().reads).await?;
    let cancelled = sqlx::query_scalar!(
        r#"SELECT count(*) FILTER (WHERE errors -> -1 ->> 'class' = 'cancelled') AS "count!"
           FROM (SELECT errors FROM dead_jobs ORDER BY died_at DESC LIMIT 10001) d"#
    );
    let cancelled = cancelled.fetch_one(&runtime.pools().reads).await?;
    let failed = dead - cancelled.min(dead);
    let why = held.why.map(|why| format!(": {why}")).unwrap_or_default();
    let mut findings = vec![
        Finding::new("outbox", age_ms < LATE_OUTBOX_MS, format!("{events} events wait, the oldest for {age_ms} ms")),
        Finding::new("events held back", held.count == 0, format!("{}{why}", held.count)),
        Finding::new("jobs due", true, due.to_string()),
        Finding::new("jobs dead", failed == 0, failed.to_string()),
    ];
    if cancelled > 0 {
        findings.push(Finding::by_operator("jobs cancelled", format!("{cancelled} are kept among the dead")));
    }
    Ok(findings)
}

/// A standby that reads may go to.
async fn follows(runtime: &Runtime, standby: Standby) -> Finding {
    let mut follower = Follower::of(standby.clone());
    for _ in 0..LOOKS_AT_STANDBY {
        follower.look(&runtime.pools().reads).await;
        if standby.is_fresh() {
            break;
        }
        tokio::time::sleep(standby.look_every()).await;
    }
    let detail = match standby.age() {
        Some(age) if standby.is_fresh() => format!("at most {} ms behind", age.as_millis()),
        Some(age) => format!("{} ms behind: reads go to the primary", age.as_millis()),
        None => "it can't be seen to follow: reads go to the primary".to_owned(),
    };
    Finding::new("standby", standby.is_fresh(), detail)
}

/// Whether the server keeps its log of writes elsewhere, from which a restore to a moment is made.
async fn archive(runtime: &Runtime) -> anyhow::Result<Finding> {
    let archive = Archive::look(&runtime.pools().reads).await?;
    Ok(Finding::new("archive", archive.failing_since().is_none(), archive.to_string()))
}

/// One finding for all queues where all is well, and one for each where it is not.
async fn queues(runtime: &Runtime) -> anyhow::Result<Vec<Finding>> {
    let depths = job::depths_of_all(runtime, true).await?;
    let mut findings = Vec::new();
    for depth in &depths {
        let what = format!("queue {}", depth.kind);
        if let Some(why) = depth.standstill() {
            findings.push(Finding::new(what.as_str(), false, why));
        }
        if depth.faulty > 0 {
            let detail = format!(
                "{} jobs could not be settled and are put off for the others: see the worker's log",
                depth.faulty
            );
            findings.push(Finding::new(what.as_str(), false, detail));
        }
        if depth.exhausted > 0 {
            let detail =
                format!("{} jobs are in, or after, the last try of a runner of the crate sqlxmq", depth.exhausted);
            findings.push(Finding::new(what.as_str(), false, detail));
        }
        if let Some((at, by)) = &depth.paused {
            findings.push(Finding::by_operator(what.as_str(), format!("paused by {by} since {}", at.format("%FT%TZ"))));
        }
    }
    if findings.iter().all(|finding| finding.ok) {
        findings.push(Finding::new("queues", true, format!("{} of them, and none stands still", depths.len())));
    }
    Ok(findings)
}

async fn overdue(runtime: &Runtime, reconcilers: &[reconcile::ErasedReconciler]) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for reconciler in reconcilers {
        let overdue = (reconciler.overdue)(&runtime.pools().reads).await?;
        let age =
            if overdue.count > 0 { format!(", the oldest for {} s", overdue.oldest.as_secs()) } else { String::new() };
        findings.push(Finding::new(reconciler.what, overdue.count == 0, format!("{}{age}", overdue.count)));
    }
    Ok(findings)
}
