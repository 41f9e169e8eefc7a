use chrono::{DateTime, Utc};
use gavel_runtime::{Pool, Result};
use uuid::Uuid;

pub(super) struct BidRow {
    pub(super) bid_id: Uuid,
    pub(super) sequence: i64,
    pub(super) bidder_id: String,
    pub(super) amount_minor: i32,
    pub(super) decided_at: DateTime<Utc>,
}

pub(super) async fn page(reads: &Pool, item_id: Uuid, before: i64, limit: i64) -> Result<Vec<BidRow>> {
    let rows = sqlx::query_as!(
        BidRow,
        "SELECT bid_id, sequence, bidder_id, amount_minor, decided_at FROM bids
         WHERE item_id = $1 AND sequence < $2
         ORDER BY sequence DESC
         LIMIT $3",
        item_id,
        before,
        limit,
    );
    Ok(rows.fetch_all(reads).await?)
}
