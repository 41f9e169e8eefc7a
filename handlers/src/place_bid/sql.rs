use crate::item::ItemRow;
use chrono::{DateTime, Utc};
use gavel_rules::Bid;
use gavel_runtime::{Result, Tx};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Accepted bids on their way into the ledger, as the columns of one statement.
#[derive(Default)]
pub(super) struct Ledger {
    bid_ids: Vec<Uuid>,
    item_ids: Vec<Uuid>,
    sequences: Vec<i64>,
    bidder_ids: Vec<String>,
    max_amounts_minor: Vec<i64>,
    decided_at: Vec<DateTime<Utc>>,
}

impl Ledger {
    /// Adds a bid, with the item as the bid has left it.
    pub(super) fn add(&mut self, bid_id: Uuid, bid: &Bid, after: &ItemRow) {
        self.bid_ids.push(bid_id);
        self.item_ids.push(after.item_id);
        self.sequences.push(after.version);
        self.bidder_ids.push(bid.bidder.to_string());
        self.max_amounts_minor.push(bid.amount_minor);
        self.decided_at.push(after.read_at);
    }

    /// Writes the bids and moves their items to their newest prices and versions, in one statement.
    pub(super) async fn record(self, tx: &mut Tx, items: &HashMap<Uuid, ItemRow>) -> Result<()> {
        if self.bid_ids.is_empty() {
            return Ok(());
        }
        let changed: HashSet<_> = self.item_ids.iter().copied().collect();
        let changed: Vec<_> = changed.iter().filter_map(|item_id| items.get(item_id)).collect();
        let column = |of: fn(&ItemRow) -> i64| changed.iter().map(|item| of(item)).collect::<Vec<_>>();
        let item_ids: Vec<_> = changed.iter().map(|item| item.item_id).collect();
        let leader_ids: Vec<_> = changed.iter().map(|item| item.leader_id.clone().unwrap_or_default()).collect();
        sqlx::query!(
            "WITH placed AS (
               INSERT INTO bids (bid_id, item_id, sequence, bidder_id, max_amount_minor, decided_at)
               SELECT bid_id, item_id, sequence, bidder_id, max_amount_minor, decided_at
               FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::timestamptz[])
                 AS b (bid_id, item_id, sequence, bidder_id, max_amount_minor, decided_at))
             UPDATE items SET price_minor = n.price_minor, leader_id = n.leader_id, bid_count = n.bid_count,
                              version = n.version
             FROM unnest($7::uuid[], $8::bigint[], $9::text[], $10::bigint[], $11::bigint[])
               AS n (item_id, price_minor, leader_id, bid_count, version)
             WHERE items.item_id = n.item_id",
            &self.bid_ids,
            &self.item_ids,
            &self.sequences,
            &self.bidder_ids,
            &self.max_amounts_minor,
            &self.decided_at,
            &item_ids,
            &column(|item| item.price_minor.unwrap_or_default()),
            &leader_ids,
            &column(|item| item.bid_count),
            &column(|item| item.version),
        )
        .execute(tx.conn())
        .await?;
        Ok(())
    }
}
