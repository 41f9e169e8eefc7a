use super::ItemRow;
use gavel_runtime::{Error, Result, Tx};
use sqlx::PgExecutor;
use std::collections::HashMap;
use uuid::Uuid;

/// The columns of [`ItemRow`], for a macro that makes a statement of them: the one list there is.
macro_rules! with_item_columns {
    ([$($then:tt)*] $($rest:tt)*) => {
        $($then)*!(
            "item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor, leader_id, bid_count, \
             version, starts_at, ends_at, closed_at, cancel_reason"
            $($rest)*
        )
    };
}

macro_rules! select_items {
    ($columns:tt $rest:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            $crate::item::ItemRow,
            "SELECT " + $columns + ", clock_timestamp() AS \"read_at!\" FROM items " + $rest
            $(, $argument)*
        )
    };
}

/// The clock stands behind a count of the locked rows: in the locking query it would be read before the wait for a
/// lock.
macro_rules! lock_items {
    ($columns:tt $item_ids:expr) => {
        sqlx::query_as!(
            ItemRow,
            "WITH locked AS MATERIALIZED (SELECT "
                + $columns
                + " FROM items WHERE item_id = ANY($1) ORDER BY item_id \
                                          FOR UPDATE), \
             clock AS MATERIALIZED (SELECT count(*) AS locked, clock_timestamp() AS now FROM locked) \
             SELECT "
                + $columns
                + ", clock.now AS \"read_at!\" FROM locked CROSS JOIN clock",
            $item_ids,
        )
    };
}

/// `query_as!` for whole rows of `items`: what follows the list of columns, and its arguments.
macro_rules! item_rows {
    ($($rest:tt)*) => { $crate::item::with_item_columns!([$crate::item::select_items] $($rest)*) };
}
pub(crate) use {item_rows, select_items, with_item_columns};

/// Locks all of these items for this transaction, in the order of their ids whoever locks them, and reads the
/// database's clock once all locks are held. Those that do not exist are missing from what it gives.
pub async fn lock_all(tx: &mut Tx, item_ids: &[Uuid]) -> Result<HashMap<Uuid, ItemRow>> {
    let rows = with_item_columns!([lock_items] item_ids).fetch_all(tx.conn()).await?;
    Ok(rows.into_iter().map(|item| (item.item_id, item)).collect())
}

/// Locks the item for this transaction and reads the database's clock once the lock is held.
///
/// # Errors
/// `NotFound` when there is no such item.
pub async fn lock(tx: &mut Tx, item_id: Uuid) -> Result<ItemRow> {
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
