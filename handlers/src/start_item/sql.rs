use crate::item::ItemRow;
use gavel_runtime::{Result, Tx};

pub(super) async fn record(tx: &mut Tx, item: &ItemRow) -> Result<()> {
    sqlx::query!("UPDATE items SET version = $2 WHERE item_id = $1", item.item_id, item.version)
        .execute(tx.conn())
        .await?;
    Ok(())
}
