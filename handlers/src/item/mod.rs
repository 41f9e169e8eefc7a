//! An item's row, and what everyone may see of it.

mod fact;
mod sql;
mod view;

pub use fact::routing_key;
pub(crate) use sql::{item_rows, select_items, with_item_columns};
pub use sql::{lock, lock_all, missing, read};
pub use view::{is_over, shown, shown_just_then, status, status_name, update};

use crate::convert::stored_user;
use chrono::{DateTime, Utc};
use fact::key_of;
use gavel_proto::events_v1::{ItemEvent, ItemState, item_event::Fact};
use gavel_rules::{Auction, Ladder};
use gavel_runtime::{Error, Event, Result, ids, wire::timestamp};
use prost::Message;
use uuid::Uuid;

/// One row of `items`.
#[derive(Debug, Clone)]
pub struct ItemRow {
    /// The key.
    pub item_id: Uuid,
    /// Who sells.
    pub seller_id: String,
    /// What it is.
    pub title: String,
    /// ISO 4217.
    pub currency: String,
    /// Minor units.
    pub start_price_minor: i64,
    /// Which step ladder.
    pub ladder_version: i16,
    /// Minor units; none while there is no bid.
    pub price_minor: Option<i64>,
    /// None while there is no bid.
    pub leader_id: Option<String>,
    /// Accepted bids.
    pub bid_count: i64,
    /// Gapless.
    pub version: i64,
    /// Bids count from here.
    pub starts_at: DateTime<Utc>,
    /// Bids count until just before here.
    pub ends_at: DateTime<Utc>,
    /// When the end was recorded.
    pub closed_at: Option<DateTime<Utc>>,
    /// Why it was cancelled, perhaps empty; none unless it was.
    pub cancel_reason: Option<String>,
    /// The database's clock when the row was read; under a lock, once the lock was held: the time of the decision.
    pub read_at: DateTime<Utc>,
}

impl ItemRow {
    /// Returns what the rules need to know, where that is the highest bid taken.
    pub fn auction(&self, ceiling_minor: i64) -> Result<Auction> {
        let leader = self.leader_id.as_deref().map(stored_user).transpose()?;
        Ok(Auction {
            seller: stored_user(&self.seller_id)?,
            start_price_minor: self.start_price_minor,
            standing: self.price_minor.zip(leader),
            ladder: self.ladder()?,
            ceiling_minor,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
        })
    }

    fn ladder(&self) -> Result<Ladder> {
        let unknown = || Error::internal(anyhow::anyhow!("ladder version {} is unknown", self.ladder_version));
        Ladder::from_version(self.ladder_version).ok_or_else(unknown)
    }

    /// Returns what everyone may see, where that is the highest bid taken.
    pub fn state(&self, ceiling_minor: i64) -> Result<ItemState> {
        let next_minimum = self.ladder()?.next_minimum_minor(self.start_price_minor, self.price_minor, ceiling_minor);
        Ok(ItemState {
            item_id: self.item_id.to_string(),
            title: self.title.clone(),
            seller_id: self.seller_id.clone(),
            currency: self.currency.clone(),
            start_price_minor: self.start_price_minor,
            price_minor: self.price_minor,
            leader_id: self.leader_id.clone().unwrap_or_default(),
            bid_count: self.bid_count,
            next_minimum_minor: next_minimum.filter(|_| self.closed_at.is_none()).unwrap_or_default(),
            starts_at: Some(timestamp(self.starts_at)),
            ends_at: Some(timestamp(self.ends_at)),
            closed_at: self.closed_at.map(timestamp),
            cancel_reason: self.cancel_reason.clone(),
        })
    }

    /// The event of what this row's newest version came about by, when it was read.
    pub fn event(&self, fact: Fact, ceiling_minor: i64) -> Result<Event> {
        let (event_id, routing_key) = (ids::ordered(), key_of(&fact));
        let message = ItemEvent {
            event_id: event_id.to_string(),
            version: self.version,
            occurred_at: Some(timestamp(self.read_at)),
            item: Some(self.state(ceiling_minor)?),
            fact: Some(fact),
        };
        Ok(Event::new(event_id, (self.item_id.to_string(), self.version), routing_key, &message))
    }
}

/// Returns whether two values of the read model mean the same. Another version of this program may have written a field that this one does not know.
pub fn agree(held: &[u8], truth: &[u8]) -> bool {
    held == truth || ItemState::decode(held).is_ok_and(|held| Ok(held) == ItemState::decode(truth))
}

/// The key of an item in the read model.
pub fn cache_key(item_id: &str) -> String {
    format!("item:{item_id}")
}
