//! A backfill beside one bulk UPDATE of the same rows and beside batches as GitLab makes them; and what the trigger that
//! keeps two forms equal costs those who write.
mod bids;
mod trigger;

use crate::{
    Measured,
    bids::service::{Process, Releases},
    extent, fresh,
    ours::EXPAND,
    rehearse::{Stage, old_rows},
    report::{Row, at_most, below, beside, median},
    waiting,
};
use sqlx::{PgPool, migrate::Migrator};
use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

/// What a worker runs that fills and nothing else.
const FILLING: &[&str] = &["--only", "run_backfill_chunk,run_online_step"];
/// Bids that are filled.
const ROWS: u32 = 1_000_000;
/// The last release's migrations.
const BEFORE: usize = 25;
/// Rows of a batch and of a part of it, as GitLab's batched background migrations have them by default.
const GITLAB: (i64, i64) = (20_000, 1_000);
/// A chunk that runs comes to its end within this, in milliseconds.
const CHUNK_MS: f64 = 150.0;

/// What filling came to.
struct Filled {
    rows: Measured,
    log_bytes: f64,
    grown_bytes: f64,
}

/// All parts of it, or one.
pub(crate) async fn run(stage: &Stage<'_>, rounds: usize, only: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let mut rows = if wanted("filling") { with_nothing_else(stage, rounds).await? } else { Vec::new() };
    if wanted("bids") {
        rows.extend(bids::slowed(stage, rounds).await?);
    }
    if wanted("trigger") {
        eprintln!("  … what the trigger costs");
        rows.extend(trigger::cost(stage, rounds).await?);
    }
    Ok(rows)
}

/// Beside other ways to fill, where nobody bids.
async fn with_nothing_else(stage: &Stage<'_>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let (mut ours, mut bulk, mut gitlab, mut pauses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 1..=rounds {
        eprintln!("  … round {number} of {rounds}: one bulk UPDATE");
        bulk.push(filling(stage, async |db: &PgPool| at_once(db).await).await?);
        eprintln!("  … round {number} of {rounds}: batches as GitLab makes them");
        gitlab.push(filling(stage, async |db: &PgPool| in_batches(db).await).await?);
        eprintln!("  … round {number} of {rounds}: Gavel's backfill");
        ours.push(filling(stage, async |db: &PgPool| by_jobs(stage, db, &mut pauses).await).await?);
    }
    let speed = |all: &[Filled]| median(all.iter().map(|filled| filled.rows.per_second()).collect());
    let log = |all: &[Filled]| median(all.iter().map(|filled| filled.log_bytes).collect());
    let grown = |all: &[Filled]| median(all.iter().map(|filled| filled.grown_bytes).collect());
    Ok(vec![
        beside(
            "rows filled a second, nothing else to do",
            "rows/s",
            speed(&ours),
            ("one bulk UPDATE", speed(&bulk)),
            0.7,
        ),
        beside(
            "rows filled a second, nothing else to do",
            "rows/s",
            speed(&ours),
            ("GitLab's batches", speed(&gitlab)),
            0.0,
        ),
        at_most("log written for a row", "bytes", log(&ours), ("one bulk UPDATE", log(&bulk)), f64::INFINITY),
        at_most("log written for a row", "bytes", log(&ours), ("GitLab's batches", log(&gitlab)), f64::INFINITY),
        at_most(
            "growth of the table for a row",
            "bytes",
            grown(&ours),
            ("one bulk UPDATE", grown(&bulk)),
            f64::INFINITY,
        ),
        at_most(
            "growth of the table for a row",
            "bytes",
            grown(&ours),
            ("GitLab's batches", grown(&gitlab)),
            f64::INFINITY,
        ),
        below("until a backfill that runs is paused", "ms", median(pauses), CHUNK_MS * 2.0),
    ])
}

/// The schema with both forms, and rows that have the old one alone.
async fn prepared(stage: &Stage<'_>) -> anyhow::Result<PgPool> {
    let db = fresh(stage.base, "rehearsal").await?;
    let old = Migrator { migrations: Cow::Borrowed(&EXPAND.migrations[..BEFORE]), ..Migrator::DEFAULT };
    old.run(&db).await?;
    old_rows(&db, extent::count(ROWS).into()).await?;
    EXPAND.run(&db).await?;
    sqlx::query("CHECKPOINT").execute(&db).await?;
    Ok(db)
}

async fn filling(
    stage: &Stage<'_>,
    fill: impl AsyncFnOnce(&PgPool) -> anyhow::Result<Duration>,
) -> anyhow::Result<Filled> {
    let db = prepared(stage).await?;
    let look = async || -> anyhow::Result<(i64, i64)> {
        let read = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, pg_total_relation_size('bids')";
        Ok(sqlx::query_as(read).fetch_one(&db).await?)
    };
    let before = look().await?;
    let took = fill(&db).await?;
    let after = look().await?;
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM bids WHERE max_amount_minor IS NULL").fetch_one(&db).await?;
    anyhow::ensure!(left == 0, "{left} rows are not filled");
    let rows = extent::count(ROWS);
    #[expect(clippy::cast_precision_loss, reason = "bytes of a row")]
    let for_a_row = |bytes: i64| bytes as f64 / f64::from(rows);
    Ok(Filled {
        rows: Measured { jobs: rows.into(), took },
        log_bytes: for_a_row(after.0 - before.0),
        grown_bytes: for_a_row(after.1 - before.1),
    })
}

async fn at_once(db: &PgPool) -> anyhow::Result<Duration> {
    let began = Instant::now();
    sqlx::query("UPDATE bids SET max_amount_minor = amount_minor WHERE max_amount_minor IS NULL").execute(db).await?;
    Ok(began.elapsed())
}

/// Each batch is found by its first and last key, and changed in parts that commit by themselves; without the pauses.
async fn in_batches(db: &PgPool) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let (batch, part) = GITLAB;
    let next = "SELECT bid_id::text FROM bids WHERE bid_id >= $1::uuid ORDER BY bid_id OFFSET $2 LIMIT 1";
    let next_after = async |from: &str, rows: i64| -> anyhow::Result<Option<String>> {
        Ok(sqlx::query_scalar(next).bind(from).bind(rows).fetch_optional(db).await?)
    };
    let first: Option<String> = sqlx::query_scalar("SELECT min(bid_id::text) FROM bids").fetch_one(db).await?;
    let (mut from, change) = (
        first,
        "UPDATE bids SET max_amount_minor = amount_minor
                                      WHERE bid_id >= $1::uuid AND ($2::uuid IS NULL OR bid_id < $2::uuid)",
    );
    while let Some(begin) = from {
        let end = next_after(&begin, batch).await?;
        let mut at = Some(begin);
        while let Some(begin) = at {
            let upto = next_after(&begin, part).await?.filter(|upto| end.as_ref().is_none_or(|end| upto < end));
            sqlx::query(change).bind(&begin).bind(upto.as_ref().or(end.as_ref())).execute(db).await?;
            at = upto;
        }
        from = end;
    }
    Ok(began.elapsed())
}

/// Rows that the one backfill has passed.
async fn passed(db: &PgPool) -> anyhow::Result<u64> {
    let rows: i64 = sqlx::query_scalar("SELECT rows_passed FROM backfills").fetch_one(db).await?;
    Ok(u64::try_from(rows)?)
}

/// By a worker that does nothing else, paused and resumed once.
async fn by_jobs(stage: &Stage<'_>, db: &PgPool, pauses: &mut Vec<f64>) -> anyhow::Result<Duration> {
    let release: &Releases = &stage.new;
    let service: Process = stage.service(release).await?;
    let worker = stage.worker(release, FILLING).await?;
    let ask = |what: &[&str]| stage.ops(&service, &[&["schema", "backfill"], what, &["--reason", "a bench"]].concat());
    ask(&["start", "27", "--rest-ratio", "0"])?;
    waiting::reached("it has begun", 1, async || passed(db).await).await?;
    let asked = Instant::now();
    ask(&["pause", "27"])?;
    pauses.push(asked.elapsed().as_secs_f64() * 1_000.0);
    ask(&["resume", "27"])?;
    let is_filled = || async {
        let filled = "SELECT cursor IS NULL AND state = 'running' OR state = 'done' FROM backfills";
        Ok(sqlx::query_scalar::<_, bool>(filled).fetch_one(db).await?)
    };
    waiting::until("every row is filled", is_filled).await?;
    // What its chunks took, and the gaps between them: not the time of the two calls.
    let busy: i64 = sqlx::query_scalar("SELECT busy_ms FROM backfills").fetch_one(db).await?;
    let gaps: f64 = sqlx::query_scalar(
        "SELECT extract(epoch FROM progressed_at - started_at)::double precision * 1000 - busy_ms FROM backfills",
    )
    .fetch_one(db)
    .await?;
    for process in [service, worker] {
        process.drain().await?;
    }
    Ok(Duration::from_millis(u64::try_from(busy)?) + Duration::from_secs_f64(gaps.max(0.0) / 1_000.0))
}
