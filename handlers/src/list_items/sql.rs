use crate::item::ItemRow;
use gavel_runtime::Result;
use sqlx::PgPool;
use uuid::Uuid;

/// Item ids are made in the order of time, so the primary key is also the order of the list.
pub(super) async fn page(
    reads: &PgPool,
    after: Option<Uuid>,
    closed: Option<bool>,
    limit: i64,
) -> Result<Vec<ItemRow>> {
    let rows = sqlx::query_as!(
        ItemRow,
        "SELECT item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor, leader_id,
                bid_count, version, starts_at, ends_at, closed_at
         FROM items
         WHERE ($1::uuid IS NULL OR item_id < $1) AND ($2::boolean IS NULL OR (closed_at IS NOT NULL) = $2)
         ORDER BY item_id DESC
         LIMIT $3",
        after,
        closed,
        limit,
    );
    Ok(rows.fetch_all(reads).await?)
}
