use crate::item::{ItemRow, item_rows};
use chrono::{DateTime, Utc};
use gavel_runtime::{Pool, Result};
use uuid::Uuid;

// Item ids are made in the order of time, so their order is that of the list. Each filter has a statement of its own,
// whose order and condition are those of an index: a page reads a page.

pub(super) async fn all(reads: &Pool, before: Uuid, limit: i64) -> Result<Vec<ItemRow>> {
    let rows = item_rows!("WHERE item_id < $1 ORDER BY item_id DESC LIMIT $2", before, limit);
    Ok(rows.fetch_all(reads).await?)
}

/// Those whose end is not recorded; some may be past it, or before their start.
pub(super) async fn not_closed(reads: &Pool, before: Uuid, limit: i64) -> Result<Vec<ItemRow>> {
    let rows = item_rows!("WHERE closed_at IS NULL AND item_id < $1 ORDER BY item_id DESC LIMIT $2", before, limit,);
    Ok(rows.fetch_all(reads).await?)
}

/// Those whose end is recorded; some may have been cancelled.
pub(super) async fn closed(reads: &Pool, before: Uuid, limit: i64) -> Result<Vec<ItemRow>> {
    let rows = item_rows!("WHERE closed_at IS NOT NULL AND item_id < $1 ORDER BY item_id DESC LIMIT $2", before, limit);
    Ok(rows.fetch_all(reads).await?)
}

pub(super) async fn cancelled(reads: &Pool, before: Uuid, limit: i64) -> Result<Vec<ItemRow>> {
    let rows =
        item_rows!("WHERE cancel_reason IS NOT NULL AND item_id < $1 ORDER BY item_id DESC LIMIT $2", before, limit);
    Ok(rows.fetch_all(reads).await?)
}

/// Those past their end, as the database's clock has it, whose end is not recorded.
pub(super) async fn closing(reads: &Pool, after: (DateTime<Utc>, Uuid), limit: i64) -> Result<Vec<ItemRow>> {
    let (ends_at, item_id) = after;
    let rows = item_rows!(
        "WHERE closed_at IS NULL AND ends_at <= clock_timestamp() AND (ends_at, item_id) > ($1, $2) \
         ORDER BY ends_at, item_id LIMIT $3",
        ends_at,
        item_id,
        limit,
    );
    Ok(rows.fetch_all(reads).await?)
}

/// Those before their start, as the database's clock has it.
pub(super) async fn scheduled(reads: &Pool, after: (DateTime<Utc>, Uuid), limit: i64) -> Result<Vec<ItemRow>> {
    let (starts_at, item_id) = after;
    let rows = item_rows!(
        "WHERE closed_at IS NULL AND starts_at > clock_timestamp() AND (starts_at, item_id) > ($1, $2) \
         ORDER BY starts_at, item_id LIMIT $3",
        starts_at,
        item_id,
        limit,
    );
    Ok(rows.fetch_all(reads).await?)
}
