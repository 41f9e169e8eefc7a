use crate::item::ItemRow;
use gavel_runtime::{Io, Result};

/// The items that a user has bid on and that are open, or won lately; those that end last first.
///
/// Which ones a user has bid on is what the statistics know: moments behind the ledger.
pub(super) async fn followed(io: &Io, user: &str, won_within_days: i32, most: i64) -> Result<Vec<ItemRow>> {
    let rows = sqlx::query_as!(
        ItemRow,
        "SELECT i.item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor, leader_id,
                bid_count, version, starts_at, ends_at, closed_at
         FROM user_items u JOIN items i USING (item_id)
         WHERE u.user_id = $1
           AND (closed_at IS NULL
                OR leader_id = $1 AND closed_at > clock_timestamp() - make_interval(days => $2))
         ORDER BY ends_at DESC, i.item_id
         LIMIT $3",
        user,
        won_within_days,
        most,
    );
    Ok(rows.fetch_all(io.reads()).await?)
}
