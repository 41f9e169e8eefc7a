use crate::item::ItemRow;
use gavel_runtime::{Result, Tx};

pub(super) async fn record(tx: &mut Tx, item: &ItemRow) -> Result<()> {
    sqlx::query!(
        "UPDATE items SET starts_at = $2, ends_at = $3, closed_at = $4, cancel_reason = $5, version = $6
         WHERE item_id = $1",
        item.item_id,
        item.starts_at,
        item.ends_at,
        item.closed_at,
        item.cancel_reason,
        item.version,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
