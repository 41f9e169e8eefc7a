//! What a runner of the crate sqlxmq leaves of a job: it makes its last try with a row that is never due again, and
//! where that try fails, or its process dies, the row stays as it is for ever. Kinds that are run here have no other
//! runner, so such a job is given the time that a try may take anywhere, and then dead_lettered.
use crate::queue::{
    Kind,
    claim::Claimed,
    settle::{self, Failure, Fence, Keys},
};
use crate::{Invocation, Result, Runtime, Tx, base::spec::PoolKind};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// A last try that was begun elsewhere has this long.
const PATIENCE: Duration = Duration::from_hours(1);
/// Interval at which such jobs are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Time for which that may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Jobs taken at a time.
const BATCH: i64 = 100;

/// Looks until the drain.
pub(super) fn run(runtime: &Runtime) {
    let runtime = runtime.clone();
    runtime.clone().tasks().spawn(async move {
        loop {
            let kinds = runtime.jobs().running_kinds();
            if let Err(error) = sweep(&runtime, &kinds).await {
                tracing::warn!(%error, "exhausted jobs can't be looked for");
            }
            if !runtime.tasks().pause(LOOK_EVERY).await {
                return;
            }
        }
    });
}

async fn sweep(runtime: &Runtime, kinds: &[Arc<Kind>]) -> Result<()> {
    let names: Vec<_> = kinds.iter().map(|kind| kind.spec.name.to_owned()).collect();
    let mut tx = Tx::begin(runtime.pools(), PoolKind::Jobs, Invocation::start("dead_letter_jobs", TIMEOUT)).await?;
    // Those that were not seen before: their time begins. A lease is what nobody else touches.
    sqlx::query!(
        "UPDATE mq_msgs SET lease_token = $3, leased_until = clock_timestamp() + make_interval(secs => $2)
         WHERE id IN (SELECT id FROM mq_msgs WHERE channel_name = ANY($1) AND attempt_at IS NULL AND lease_token IS NULL
                      LIMIT $4 FOR UPDATE SKIP LOCKED)",
        &names,
        PATIENCE.as_secs_f64(),
        Uuid::max(),
        BATCH,
    )
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    for _ in 0..BATCH {
        // Each in a transaction of its own: one that can't be dead-lettered is not to keep the others.
        match dead_letter_next(runtime, kinds, &names).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::error!(%error, "an exhausted job can't be dead-lettered: it is left alone for as long again");
            }
        }
    }
    Ok(())
}

/// Dead-letters one whose time is over; false where there is none.
async fn dead_letter_next(runtime: &Runtime, kinds: &[Arc<Kind>], names: &[String]) -> Result<bool> {
    let mut tx = Tx::begin(runtime.pools(), PoolKind::Jobs, Invocation::start("dead_letter_jobs", TIMEOUT)).await?;
    let Some((kind, job)) = over(&mut tx, names).await? else { return tx.commit().await.map(|()| false) };
    let dead_lettered = dead_letter(&mut tx, kinds, &kind, &job).await;
    match dead_lettered {
        Ok(()) => tx.commit().await.map(|()| true),
        Err(error) => {
            tx.rollback().await;
            put_off(runtime, job.id).await?;
            Err(error)
        }
    }
}

async fn dead_letter(tx: &mut Tx, kinds: &[Arc<Kind>], kind: &str, job: &Claimed) -> Result<()> {
    let Some(kind) = kinds.iter().find(|known| known.spec.name == kind) else { return Ok(()) };
    let error = "a runner of the crate sqlxmq gave it up: its last try failed, or its process died".to_owned();
    tracing::error!(handler = kind.spec.name, job_id = %job.id, error, "the job is dead");
    let per_key = kind.per_key();
    let keys = Keys::of(kind.spec.name, per_key, &[job]);
    let failure = Failure { class: "exhausted", error, after: None };
    settle::dead_letter(tx.conn(), job, Fence::Token(Uuid::max()), &failure, &keys).await.map(drop)
}

/// One that can't be dead-lettered has as long again as it had.
async fn put_off(runtime: &Runtime, job_id: Uuid) -> Result<()> {
    let mut tx = Tx::begin(runtime.pools(), PoolKind::Jobs, Invocation::start("dead_letter_jobs", TIMEOUT)).await?;
    sqlx::query!(
        "UPDATE mq_msgs SET leased_until = clock_timestamp() + make_interval(secs => $2) WHERE id = $1",
        job_id,
        PATIENCE.as_secs_f64(),
    )
    .execute(tx.conn())
    .await?;
    tx.commit().await
}

/// One whose time is over, locked.
async fn over(tx: &mut Tx, kinds: &[String]) -> Result<Option<(String, Claimed)>> {
    let rows = sqlx::query!(
        r#"SELECT m.id, m.channel_name, m.ctid::text AS "place!", m.attempts, m.tries, m.deaths, m.priority, m.seq,
                  m.channel_args, m.args IS NULL AS "stock!", coalesce(m.headers, p.payload_bytes) AS headers,
                  m.created_at
           FROM mq_msgs m LEFT JOIN mq_payloads p ON p.id = m.id
           WHERE m.channel_name = ANY($1) AND m.attempt_at IS NULL AND m.lease_token = $2
             AND m.leased_until < clock_timestamp()
           LIMIT 1 FOR UPDATE OF m SKIP LOCKED"#,
        kinds,
        Uuid::max(),
    );
    let row = rows.fetch_optional(tx.conn()).await?;
    Ok(row.map(|row| {
        let job = Claimed {
            id: row.id,
            place: row.place,
            attempts: row.attempts,
            tries: row.tries,
            deaths: row.deaths,
            priority: row.priority,
            attempt_at: row.created_at.unwrap_or_default(),
            seq: row.seq,
            key: row.channel_args,
            unique_key: None,
            stock: row.stock,
            args: None,
            headers: row.headers,
        };
        (row.channel_name, job)
    }))
}
