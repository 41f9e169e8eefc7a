use super::{ItemRow, Locked};
use gavel_runtime::{Error, Result, Tx};
use sqlx::PgExecutor;
use uuid::Uuid;

/// Locks the item for this transaction and reads the database's clock once the lock is held.
///
/// The clock stands outside the locking query: inside, it would be read before the wait for the lock.
///
/// # Errors
/// `NotFound` when there is no such item.
pub async fn lock(tx: &mut Tx, item_id: Uuid) -> Result<Locked> {
    let row = sqlx::query!(
        r#"WITH locked AS MATERIALIZED (
             SELECT item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor, leader_id,
                    bid_count, version, starts_at, ends_at, closed_at
             FROM items WHERE item_id = $1 FOR UPDATE)
           SELECT item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor, leader_id,
                  bid_count, version, starts_at, ends_at, closed_at, clock_timestamp() AS "now!"
           FROM locked"#,
        item_id,
    )
    .fetch_optional(tx.conn())
    .await?
    .ok_or_else(|| missing(item_id))?;
    let item = ItemRow {
        item_id: row.item_id,
        seller_id: row.seller_id,
        title: row.title,
        currency: row.currency,
        start_price_minor: row.start_price_minor,
        ladder_version: row.ladder_version,
        price_minor: row.price_minor,
        leader_id: row.leader_id,
        bid_count: row.bid_count,
        version: row.version,
        starts_at: row.starts_at,
        ends_at: row.ends_at,
        closed_at: row.closed_at,
    };
    Ok(Locked { item, now: row.now })
}

/// Reads the item as last committed.
///
/// # Errors
/// `NotFound` when there is no such item.
pub async fn read(executor: impl PgExecutor<'_>, item_id: Uuid) -> Result<ItemRow> {
    let row = sqlx::query_as!(
        ItemRow,
        "SELECT item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor, leader_id,
                bid_count, version, starts_at, ends_at, closed_at
         FROM items WHERE item_id = $1",
        item_id,
    )
    .fetch_optional(executor)
    .await?;
    row.ok_or_else(|| missing(item_id))
}

fn missing(item_id: Uuid) -> Error {
    Error::not_found(format!("there is no item {item_id}"))
}
