use super::{ItemRow, Locked};
use gavel_runtime::{Error, Result, Tx};
use sqlx::PgExecutor;
use std::collections::HashMap;
use uuid::Uuid;

/// `query_as!` for whole rows of `items`: what follows the list of columns, and its arguments.
macro_rules! item_rows {
    ($rest:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            $crate::item::ItemRow,
            "SELECT item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor, leader_id, \
             bid_count, version, starts_at, ends_at, closed_at FROM items " + $rest
            $(, $argument)*
        )
    };
}
pub(crate) use item_rows;

/// Locks all of these items for this transaction, in the order of their ids whoever locks them, and reads the database's
/// clock once all locks are held. Those that do not exist are missing from what it gives.
///
/// The clock stands behind a count of the locked rows: in the locking query it would be read before the wait for a lock.
pub async fn lock_all(tx: &mut Tx, item_ids: &[Uuid]) -> Result<HashMap<Uuid, Locked>> {
    let rows = sqlx::query!(
        r#"WITH locked AS MATERIALIZED (
             SELECT item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor, leader_id,
                    bid_count, version, starts_at, ends_at, closed_at
             FROM items WHERE item_id = ANY($1) ORDER BY item_id FOR UPDATE),
           clock AS MATERIALIZED (SELECT count(*) AS locked, clock_timestamp() AS now FROM locked)
           SELECT item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor, leader_id,
                  bid_count, version, starts_at, ends_at, closed_at, clock.now AS "now!"
           FROM locked CROSS JOIN clock"#,
        item_ids,
    )
    .fetch_all(tx.conn())
    .await?;
    let locked = rows.into_iter().map(|row| {
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
        (item.item_id, Locked { item, now: row.now })
    });
    Ok(locked.collect())
}

/// Locks the item for this transaction and reads the database's clock once the lock is held.
///
/// # Errors
/// `NotFound` when there is no such item.
pub async fn lock(tx: &mut Tx, item_id: Uuid) -> Result<Locked> {
    lock_all(tx, &[item_id]).await?.remove(&item_id).ok_or_else(|| missing(item_id))
}

/// Reads the item as last committed.
///
/// # Errors
/// `NotFound` when there is no such item.
pub async fn read(executor: impl PgExecutor<'_>, item_id: Uuid) -> Result<ItemRow> {
    let row = item_rows!("WHERE item_id = $1", item_id).fetch_optional(executor).await?;
    row.ok_or_else(|| missing(item_id))
}

/// There is no such item.
pub fn missing(item_id: Uuid) -> Error {
    Error::not_found(format!("there is no item {item_id}"))
}
