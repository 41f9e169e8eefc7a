//! What a backfill does to those who bid meanwhile.
use super::{FILLING, passed, prepared};
use crate::{
    bids::load::percentile,
    extent,
    rehearse::{ITEMS, Load, Stage, took_ms, write_items},
    report::{Row, above, at_most, median},
};
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// Bids a second.
const PER_SECOND: u32 = 300;
/// It is looked for so long how bids are before it begins.
const LOOK: Duration = Duration::from_secs(30);
/// And while it runs, at most: longer than it takes to find its pace.
const LOOK_BESIDE: Duration = Duration::from_mins(2);
/// Looking costs the others something: at 300 bids a second, three of them are the slowest hundredth.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// Before that, for everybody's pools and caches to be warm.
const WARM_UP: Duration = Duration::from_secs(5);

/// The p99 of bids at a steady rate, while a backfill runs and before it began, as it is tuned by default.
pub(super) async fn slowed(stage: &Stage<'_>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let (mut before, mut during, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=rounds {
        eprintln!("  … round {number} of {rounds}: bids beside it");
        let round = round(stage).await?;
        before.push(round.before_ms);
        during.push(round.during_ms);
        rates.push(round.rows_per_second);
    }
    let what = format!("p99 of {PER_SECOND} bids a second while it runs");
    Ok(vec![
        at_most(&what, "ms", median(during), ("before it began", median(before)), 1.25),
        above("rows filled a second beside them", "rows/s", median(rates), 0.0),
    ])
}

struct Round {
    before_ms: f64,
    during_ms: f64,
    rows_per_second: f64,
}

async fn round(stage: &Stage<'_>) -> anyhow::Result<Round> {
    let db = prepared(stage).await?;
    write_items(&db).await?;
    let service = stage.service(&stage.new).await?;
    let worker = stage.worker(&stage.new, FILLING).await?;
    let load = Load::begin(ITEMS, PER_SECOND);
    load.goes_to(stage.connect(&service).await?);
    tokio::time::sleep(extent::time(WARM_UP)).await;
    let began = load.began.elapsed();
    tokio::time::sleep(extent::time(LOOK)).await;
    let started = load.began.elapsed();
    stage.ops(&service, &["schema", "backfill", "start", "27", "--reason", "a bench"])?;
    while passed(&db).await? == 0 {
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    let fills = load.began.elapsed();
    let until = Instant::now() + extent::time(LOOK_BESIDE);
    while Instant::now() < until && !filled(&db).await? {
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    let (ended, rows) = (load.began.elapsed(), passed(&db).await?);
    let at: (f64, Option<f64>) = sqlx::query_as("SELECT pace, p99_before_ms FROM backfills").fetch_one(&db).await?;
    eprintln!(
        "    at {:.2} of its pace, for a p99 of {:.1} ms that the service saw before",
        at.0,
        at.1.unwrap_or_default()
    );
    let seen = load.end().await;
    anyhow::ensure!(seen.errors.is_empty(), "bids failed, such as: {}", seen.errors[0]);
    for process in [service, worker] {
        process.drain().await?;
    }
    let p99 = |from: Duration, until: Duration| {
        percentile(&took_ms(&seen.samples, from.as_secs_f64()..until.as_secs_f64()), 99)
    };
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rows_per_second = rows as f64 / ended.saturating_sub(fills).as_secs_f64();
    Ok(Round { before_ms: p99(began, started), during_ms: p99(fills, ended), rows_per_second })
}

async fn filled(db: &PgPool) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar("SELECT cursor IS NULL FROM backfills").fetch_one(db).await?)
}
