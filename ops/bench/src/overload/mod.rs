//! More than there can be, or less than there was: what becomes of bids then, and that it ends by itself.
mod stall;
mod twice;

use crate::{bids::Bench, report::Row, watch};

/// Bids come over so few connections: many more would cost the generator, on the same machine, what is measured.
const CONNECTIONS: usize = 16;
const ITEMS: u32 = 10_000;
/// Of the peak, at twice as much as that, whichever load it is the peak of.
const GOODPUT: f64 = 0.9;
/// Of a caller, until it knows that nothing will come of it.
const REJECTED_WITHIN_MS: f64 = 50.0;

/// All parts, or that one: `twice`, `stall`, `watchers`.
pub(crate) async fn run(bench: &Bench<'_>, rounds: usize, only: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if wanted("twice") {
        rows.extend(twice::run(bench, rounds).await?);
    }
    if wanted("stall") {
        rows.extend(stall::run(bench).await?);
    }
    if wanted("watchers") {
        rows.extend(watch::stalled(bench).await?);
    }
    Ok(rows)
}
