use crate::item::ItemRow;
use gavel_runtime::{Result, Tx};

pub(super) async fn record(tx: &mut Tx, item: &ItemRow) -> Result<()> {
    sqlx::query!(
        "UPDATE items SET closed_at = $2, version = $3 WHERE item_id = $1",
        item.item_id,
        item.closed_at,
        item.version,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
