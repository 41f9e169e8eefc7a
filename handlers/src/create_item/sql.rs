use crate::item::ItemRow;
use chrono::{DateTime, Utc};
use gavel_runtime::{Result, Tx};

/// The database's clock.
pub(super) struct Clock {
    pub(super) now: DateTime<Utc>,
    pub(super) transaction_began: DateTime<Utc>,
}

pub(super) async fn clock(tx: &mut Tx) -> Result<Clock> {
    let clock = sqlx::query_as!(Clock, r#"SELECT clock_timestamp() AS "now!", now() AS "transaction_began!""#,);
    Ok(clock.fetch_one(tx.conn()).await?)
}

pub(super) async fn insert(tx: &mut Tx, item: &ItemRow) -> Result<()> {
    sqlx::query!(
        "INSERT INTO items (item_id, seller_id, title, currency, start_price_minor, ladder_version, starts_at, ends_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        item.item_id,
        item.seller_id,
        item.title,
        item.currency,
        item.start_price_minor,
        item.ladder_version,
        item.starts_at,
        item.ends_at,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
