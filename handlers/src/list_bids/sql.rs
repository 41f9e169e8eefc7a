use chrono::{DateTime, Utc};
use gavel_runtime::{Pool, Result};
use uuid::Uuid;

pub(super) struct BidRow {
    pub(super) bid_id: Uuid,
    pub(super) sequence: i64,
    pub(super) bidder_id: String,
    pub(super) amount_minor: i64,
    pub(super) decided_at: DateTime<Utc>,
}

/// A page of an item's bids, newest first, once every row has the wide amount.
pub(super) async fn page(reads: &Pool, item_id: Uuid, before: i64, limit: i64) -> Result<Vec<BidRow>> {
    let rows = sqlx::query_as!(
        BidRow,
        r#"SELECT bid_id, sequence, bidder_id, max_amount_minor AS "amount_minor!", decided_at FROM bids
           WHERE item_id = $1 AND sequence < $2
           ORDER BY sequence DESC
           LIMIT $3"#,
        item_id,
        before,
        limit,
    );
    Ok(rows.fetch_all(reads).await?)
}

/// The same while some rows have the narrow amount alone.
pub(super) async fn page_being_filled(reads: &Pool, item_id: Uuid, before: i64, limit: i64) -> Result<Vec<BidRow>> {
    let rows = sqlx::query_as!(
        BidRow,
        r#"SELECT bid_id, sequence, bidder_id, coalesce(max_amount_minor, amount_minor) AS "amount_minor!", decided_at
           FROM bids
           WHERE item_id = $1 AND sequence < $2
           ORDER BY sequence DESC
           LIMIT $3"#,
        item_id,
        before,
        limit,
    );
    Ok(rows.fetch_all(reads).await?)
}
