//! What an operator asks first: does everything answer, and what has piled up?
use crate::{
    App, Runtime,
    config::Backends,
    health::{self, Check, Needs},
    process::sample_backlog,
};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use std::sync::atomic::Ordering;

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// The figure, or what is wrong.
    pub detail: String,
}

/// An outbox this old means that the relay does not keep up.
const LATE_OUTBOX_MS: i64 = 10_000;

/// Looks at every dependency and at every backlog.
pub async fn diagnose(app: App, backends: &Backends) -> anyhow::Result<Vec<Finding>> {
    let app = app.checked()?;
    let runtime = app.runtime(backends, "diagnose", None)?;
    let ready = health::readiness(&runtime, Needs::DatabaseAndBroker).await;
    let mut findings = vec![
        finding("database", &ready.database),
        finding("schema", &ready.schema),
        finding("broker", &ready.broker),
        finding("cache", &ready.cache),
    ];
    if ready.database.up && ready.schema.up {
        findings.extend(backlogs(&runtime).await?);
    }
    if ready.broker.up && ready.database.up && ready.schema.up {
        findings.push(parked(&runtime).await?);
    }
    runtime.pools().close().await;
    Ok(findings)
}

fn finding(what: &'static str, check: &Check) -> Finding {
    Finding { what, ok: check.up, detail: check.problem.clone().unwrap_or_else(|| "answers".to_owned()) }
}

async fn backlogs(runtime: &Runtime) -> anyhow::Result<[Finding; 3]> {
    sample_backlog(runtime).await?;
    let backlog = &runtime.metrics().backlog;
    let (events, age_ms) =
        (backlog.outbox_events.load(Ordering::Relaxed), backlog.outbox_oldest_age_ms.load(Ordering::Relaxed));
    let (due, dead) = (backlog.jobs_due.load(Ordering::Relaxed), backlog.jobs_dead.load(Ordering::Relaxed));
    Ok([
        Finding {
            what: "outbox",
            ok: age_ms < LATE_OUTBOX_MS,
            detail: format!("{events} events wait, the oldest for {age_ms} ms"),
        },
        Finding { what: "jobs due", ok: true, detail: format!("{due}") },
        Finding { what: "jobs dead", ok: dead == 0, detail: format!("{dead}") },
    ])
}

/// Those on the broker are on their way into the table.
async fn parked(runtime: &Runtime) -> anyhow::Result<Finding> {
    let kept = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM (SELECT FROM parked_messages LIMIT 10001) p"#);
    let kept = kept.fetch_one(&runtime.pools().reads).await?;
    let connection = runtime.broker().connect("doctor").await?;
    let channel = connection.create_channel().await?;
    let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = runtime.topology().parking_queue();
    let waiting = channel.queue_declare(queue.as_str().into(), look, FieldTable::default()).await?.message_count();
    connection.close(200, "done".into()).await?;
    let count = kept + i64::from(waiting);
    Ok(Finding { what: "parked messages", ok: count == 0, detail: format!("{count}") })
}
