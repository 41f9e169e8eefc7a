//! The worker's heartbeat: one tick on a connection of its own, three to a lease, until the last job is settled.
//!
//! A tick says that this worker lives, renews the leases it holds in one statement, asks which of its jobs are to be
//! cancelled, writes how busy it is, and looks for workers that have died: what they were running in transactions is
//! marked as poison, and runs alone from then on.
use crate::{Conn, Result, Runtime, base::host, postgres::Purpose};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// While the drain waits for the last jobs, this often is looked whether they are settled.
const LAST_LOOK: Duration = Duration::from_millis(10);
/// A tick on a busy database may take this long even where leases are short.
const PATIENCE: Duration = Duration::from_secs(2);
/// Ticks in one lease.
const TICKS: u32 = 3;

/// Starts the heartbeat.
pub(super) fn run(runtime: &Runtime) {
    let inner = runtime.clone();
    runtime.tasks().spawn(async move { beat(&inner).await });
}

async fn beat(runtime: &Runtime) {
    let every = runtime.jobs().lease() / TICKS;
    let mut conn = None;
    let mut tick_at = Instant::now();
    loop {
        if Instant::now() >= tick_at {
            tick_at = Instant::now() + every;
            if let Err(error) = within(every.max(PATIENCE), tick(runtime, &mut conn)).await {
                tracing::warn!(%error, "the heartbeat failed");
                conn = None;
                tick_at = Instant::now() + every / 4;
            }
        }
        let draining = runtime.tasks().draining();
        if !draining.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(tick_at.saturating_duration_since(Instant::now())) => {}
                () = draining.cancelled() => {}
            }
        } else if runtime.jobs().is_idle() {
            break;
        } else {
            tokio::time::sleep(LAST_LOOK).await;
        }
    }
    if let Some(mut conn) = conn {
        let _ = within(every, sign_off(&mut conn, runtime.jobs().worker_id())).await;
    }
}

async fn within(limit: Duration, work: impl Future<Output = Result<()>>) -> Result<()> {
    crate::postgres::tx::bounded(limit, work).await
}

async fn tick(runtime: &Runtime, kept: &mut Option<Conn>) -> Result<()> {
    // Taken out: a tick that is cut off in the middle does not come back with its connection.
    let mut conn = match kept.take() {
        Some(conn) => conn,
        None => runtime.pools().connector.connect("heartbeat", Purpose::Work).await?,
    };
    renew_leases(runtime, &mut conn).await?;
    sign_on(runtime, &mut conn).await?;
    let held = runtime.jobs().held_ids();
    let cancelled = sqlx::query_scalar!("SELECT job_id FROM job_cancellations WHERE job_id = ANY($1)", &held);
    for job_id in cancelled.fetch_all(&mut conn).await? {
        runtime.jobs().cancel(job_id);
    }
    reap(&mut conn, runtime.jobs().lease()).await?;
    runtime.jobs().signed_on().cancel();
    *kept = Some(conn);
    Ok(())
}

/// A lease that another attempt has taken over is gone: its handler is told to stop.
async fn renew_leases(runtime: &Runtime, conn: &mut Conn) -> Result<()> {
    let lease = runtime.jobs().lease();
    let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) =
        runtime.jobs().leases_older_than(lease / (TICKS * 2)).into_iter().unzip();
    if ids.is_empty() {
        return Ok(());
    }
    let at = Instant::now();
    // A row that is locked is just being completed.
    let rows = sqlx::query!(
        r#"WITH mine AS (SELECT m.id FROM mq_msgs m JOIN unnest($1::uuid[], $2::uuid[]) a (id, token)
                           ON m.id = a.id AND m.lease_token = a.token FOR UPDATE OF m SKIP LOCKED),
                renewed AS (UPDATE mq_msgs m SET leased_until = clock_timestamp() + make_interval(secs => $3)
                            FROM mine WHERE m.id = mine.id RETURNING m.id)
           SELECT a.id AS "id!", a.token AS "token!", r.id IS NOT NULL AS "renewed!",
                  EXISTS (SELECT FROM mq_msgs m WHERE m.id = a.id AND m.lease_token = a.token) AS "held!"
           FROM unnest($1::uuid[], $2::uuid[]) a (id, token) LEFT JOIN renewed r ON r.id = a.id"#,
        &ids,
        &tokens,
        lease.as_secs_f64(),
    )
    .fetch_all(conn)
    .await?;
    let renewed: Vec<Uuid> = rows.iter().filter(|row| row.renewed).map(|row| row.id).collect();
    runtime.jobs().renewed(&renewed, at);
    for row in rows.iter().filter(|row| !row.held) {
        tracing::warn!(job_id = %row.id, "the job's lease was lost");
        runtime.jobs().lose_attempt(row.id, row.token);
    }
    Ok(())
}

async fn sign_on(runtime: &Runtime, conn: &mut Conn) -> Result<()> {
    let worker_id = runtime.jobs().worker_id();
    sqlx::query!(
        "INSERT INTO job_workers (worker_id, process, host) VALUES ($1, $2, $3)
         ON CONFLICT (worker_id) DO UPDATE SET seen_at = clock_timestamp()",
        worker_id,
        runtime.process(),
        host::name(),
    )
    .execute(&mut *conn)
    .await?;
    let (mut kinds, mut concurrency, mut running, mut mean_ms) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut progressed_s: Vec<Option<f64>> = Vec::new();
    for kind in runtime.jobs().running_kinds() {
        let most = i32::try_from(kind.spec.limits.concurrency).unwrap_or(i32::MAX);
        let now = kind.load.running.load(std::sync::atomic::Ordering::Relaxed);
        kinds.push(kind.spec.name.to_owned());
        concurrency.push(most);
        // A batch holds more than run at the same time.
        running.push(i32::try_from(now).unwrap_or(i32::MAX).min(most));
        mean_ms.push(kind.load.mean().as_secs_f64() * 1_000.0);
        progressed_s.push(kind.load.since_progress().map(|ago| ago.as_secs_f64()));
    }
    // The mean outlives the worker, for whoever decides how many to start; a small change is not worth a write.
    sqlx::query!(
        "WITH l AS (SELECT kind, concurrency, running, mean_ms,
                           clock_timestamp() - make_interval(secs => progressed_s) AS progressed_at
                    FROM unnest($2::text[], $3::int[], $4::int[], $5::float8[], $6::float8[])
                      l (kind, concurrency, running, mean_ms, progressed_s)),
              kept AS (
                INSERT INTO job_queues (kind, mean_ms) SELECT kind, mean_ms FROM l WHERE mean_ms > 0 ORDER BY kind
                ON CONFLICT (kind) DO UPDATE SET mean_ms = excluded.mean_ms
                WHERE job_queues.mean_ms IS NULL
                   OR abs(job_queues.mean_ms - excluded.mean_ms) > 0.2 * job_queues.mean_ms)
         INSERT INTO job_loads (worker_id, kind, concurrency, running, mean_ms, progressed_at)
         SELECT $1, kind, concurrency, running, mean_ms, progressed_at FROM l
         ON CONFLICT (worker_id, kind) DO UPDATE
           SET concurrency = excluded.concurrency, running = excluded.running, mean_ms = excluded.mean_ms,
               progressed_at = excluded.progressed_at",
        worker_id,
        &kinds,
        &concurrency,
        &running,
        &mean_ms,
        &progressed_s as &[Option<f64>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets workers that have not been seen for a lease, and marks what they were running. A job that runs elsewhere by
/// now is locked, and left. Among others it is only taken for poison, however many workers died: deaths are counted of a job
/// that ran alone.
async fn reap(conn: &mut Conn, lease: Duration) -> Result<()> {
    let reaped = sqlx::query!(
        r#"WITH gone AS (
             DELETE FROM job_workers WHERE seen_at < clock_timestamp() - make_interval(secs => $1) RETURNING worker_id),
           claims AS (
             DELETE FROM job_claims c
             WHERE c.worker_id IN (SELECT worker_id FROM gone)
                OR c.claimed_at < clock_timestamp() - make_interval(secs => $1)
                   AND NOT EXISTS (SELECT FROM job_workers w WHERE w.worker_id = c.worker_id)
             RETURNING c.job_ids),
           loads AS (
             DELETE FROM job_loads l
             WHERE NOT EXISTS (SELECT FROM job_workers w WHERE w.worker_id = l.worker_id)
                OR l.worker_id IN (SELECT worker_id FROM gone)),
           poison AS (
             SELECT id, bool_or(alone) AS alone
             FROM (SELECT unnest(job_ids) AS id, cardinality(job_ids) = 1 AS alone FROM claims) c GROUP BY id),
           free AS (
             SELECT m.id FROM mq_msgs m WHERE m.id IN (SELECT id FROM poison) FOR UPDATE OF m SKIP LOCKED),
           marked AS (
             UPDATE mq_msgs m SET deaths = CASE WHEN s.alone THEN m.deaths + 1 ELSE greatest(m.deaths, 1) END
             FROM poison s JOIN free f USING (id) WHERE m.id = s.id RETURNING m.id)
           SELECT (SELECT count(*) FROM gone) AS "workers!", (SELECT count(*) FROM marked) AS "jobs!""#,
        lease.as_secs_f64(),
    )
    .fetch_one(conn)
    .await?;
    if reaped.workers > 0 {
        tracing::warn!(
            workers = reaped.workers,
            jobs = reaped.jobs,
            "workers died; what they were running may be poison"
        );
    }
    Ok(())
}

async fn sign_off(conn: &mut Conn, worker_id: Uuid) -> Result<()> {
    sqlx::query!(
        "WITH worker AS (DELETE FROM job_workers WHERE worker_id = $1), load AS (DELETE FROM job_loads WHERE worker_id = $1)
         DELETE FROM job_claims WHERE worker_id = $1",
        worker_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}
