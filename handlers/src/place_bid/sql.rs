use crate::item::ItemRow;
use chrono::{DateTime, Utc};
use gavel_rules::Bid;
use gavel_runtime::{Error, Result, Tx};
use uuid::Uuid;

/// Adds the bid to the ledger and moves the item to its new price and version, in one statement.
pub(super) async fn record(tx: &mut Tx, bid_id: Uuid, bid: &Bid, item: &ItemRow, now: DateTime<Utc>) -> Result<()> {
    // The rules' ceiling lies below the column's range; if ever it did not, this is where it would show.
    let amount_minor = i32::try_from(bid.amount_minor).map_err(Error::internal)?;
    sqlx::query!(
        "WITH bid AS (INSERT INTO bids (bid_id, item_id, sequence, bidder_id, amount_minor, decided_at)
                      VALUES ($1, $2, $3, $4, $5, $6))
         UPDATE items SET price_minor = $7, leader_id = $4, bid_count = $8, version = $3 WHERE item_id = $2",
        bid_id,
        item.item_id,
        item.version,
        bid.bidder.as_str(),
        amount_minor,
        now,
        item.price_minor,
        item.bid_count,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
