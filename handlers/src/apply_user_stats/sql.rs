use gavel_runtime::{Result, Tx};
use uuid::Uuid;

pub(super) struct Sale<'a> {
    pub(super) item_id: Uuid,
    pub(super) user_id: &'a str,
    pub(super) currency: &'a str,
    pub(super) amount_minor: i64,
}

pub(super) async fn add_bid(tx: &mut Tx, user_id: &str, currency: &str) -> Result<()> {
    sqlx::query!(
        "INSERT INTO user_stats AS s (user_id, currency, bids_placed) VALUES ($1, $2, 1)
         ON CONFLICT (user_id, currency)
         DO UPDATE SET bids_placed = s.bids_placed + 1, updated_at = clock_timestamp()",
        user_id,
        currency,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// False when the sale is in the ledger already: then nothing is to be added.
pub(super) async fn enter_sale(tx: &mut Tx, sale: &Sale<'_>) -> Result<bool> {
    let entered = sqlx::query!(
        "INSERT INTO spend_ledger (item_id, user_id, currency, amount_minor) VALUES ($1, $2, $3, $4)
         ON CONFLICT (item_id) DO NOTHING",
        sale.item_id,
        sale.user_id,
        sale.currency,
        sale.amount_minor,
    )
    .execute(tx.conn())
    .await?;
    Ok(entered.rows_affected() == 1)
}

pub(super) async fn add_sale(tx: &mut Tx, sale: &Sale<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO user_stats AS s (user_id, currency, items_won, total_spent_minor) VALUES ($1, $2, 1, $3)
         ON CONFLICT (user_id, currency)
         DO UPDATE SET items_won = s.items_won + 1, total_spent_minor = s.total_spent_minor + excluded.total_spent_minor,
                       updated_at = clock_timestamp()",
        sale.user_id,
        sale.currency,
        sale.amount_minor,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
