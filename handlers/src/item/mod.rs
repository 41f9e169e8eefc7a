//! An item's row, and what everyone may see of it.

mod sql;

pub(crate) use sql::item_rows;
pub use sql::{lock, lock_all, missing, read};

use crate::convert::stored_user;
use chrono::{DateTime, Utc};
use gavel_proto::{
    events_v1::{ItemEvent, ItemState, item_event::Fact},
    v1,
};
use gavel_rules::{Auction, Ladder};
use gavel_runtime::{Error, Event, Result, ids, wire::timestamp};
use prost_types::Timestamp;
use uuid::Uuid;

/// The routing keys of an item's events.
pub mod routing_key {
    /// An item was published.
    pub const CREATED: &str = "item.created";
    /// Bidding began on an item that was published before its start.
    pub const STARTED: &str = "item.started";
    /// A bid was accepted.
    pub const BID_ACCEPTED: &str = "bid.accepted";
    /// An auction ended.
    pub const CLOSED: &str = "item.closed";
}

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
}

/// An item under its lock, with the database's clock read after the lock was granted.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The row.
    pub item: ItemRow,
    /// The time of the decision.
    pub now: DateTime<Utc>,
}

impl ItemRow {
    /// What the rules need to know.
    pub fn auction(&self) -> Result<Auction> {
        let leader = self.leader_id.as_deref().map(stored_user).transpose()?;
        Ok(Auction {
            seller: stored_user(&self.seller_id)?,
            start_price_minor: self.start_price_minor,
            standing: self.price_minor.zip(leader),
            ladder: self.ladder()?,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
        })
    }

    fn ladder(&self) -> Result<Ladder> {
        let unknown = || Error::internal(anyhow::anyhow!("ladder version {} is unknown", self.ladder_version));
        Ladder::from_version(self.ladder_version).ok_or_else(unknown)
    }

    /// What everyone may see.
    pub fn state(&self) -> Result<ItemState> {
        let next_minimum = self.ladder()?.next_minimum_minor(self.start_price_minor, self.price_minor);
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
        })
    }

    /// The event that this row's newest version came about by.
    pub fn event(&self, routing_key: &'static str, occurred_at: DateTime<Utc>, fact: Fact) -> Result<Event> {
        let event_id = ids::ordered();
        let message = ItemEvent {
            event_id: event_id.to_string(),
            version: self.version,
            occurred_at: Some(timestamp(occurred_at)),
            item: Some(self.state()?),
            fact: Some(fact),
        };
        Ok(Event::new(event_id, (self.item_id.to_string(), self.version), routing_key, &message))
    }
}

/// The key of an item in the read model.
pub fn cache_key(item_id: &str) -> String {
    format!("item:{item_id}")
}

/// An item's status at that time: the one place that says it.
pub fn status(state: &ItemState, now: DateTime<Utc>) -> v1::ItemStatus {
    let now = timestamp(now);
    let is_past = |at: &Option<Timestamp>| at.is_some_and(|at| (at.seconds, at.nanos) <= (now.seconds, now.nanos));
    match state.closed_at {
        Some(_) => v1::ItemStatus::Closed,
        None if is_past(&state.ends_at) => v1::ItemStatus::Closing,
        None if is_past(&state.starts_at) => v1::ItemStatus::Open,
        None => v1::ItemStatus::Scheduled,
    }
}

/// A status as people read it.
pub const fn status_name(status: v1::ItemStatus) -> &'static str {
    match status {
        v1::ItemStatus::Unspecified => "unknown",
        v1::ItemStatus::Scheduled => "scheduled",
        v1::ItemStatus::Open => "open",
        v1::ItemStatus::Closing => "closing",
        v1::ItemStatus::Closed => "closed",
    }
}

/// The API's view of a public state, at that time.
pub fn shown(state: ItemState, version: i64, now: DateTime<Utc>) -> v1::Item {
    let status = status(&state, now);
    shown_as(status, state, version)
}

/// The API's view of a public state when something had just happened to the item: it had started, and was not past its end
/// unless that is what had happened.
pub fn shown_just_then(state: ItemState, version: i64) -> v1::Item {
    let status = if state.closed_at.is_some() { v1::ItemStatus::Closed } else { v1::ItemStatus::Open };
    shown_as(status, state, version)
}

fn shown_as(status: v1::ItemStatus, state: ItemState, version: i64) -> v1::Item {
    let takes_bids = matches!(status, v1::ItemStatus::Scheduled | v1::ItemStatus::Open);
    let next_minimum_minor = if takes_bids { state.next_minimum_minor } else { 0 };
    v1::Item {
        item_id: state.item_id,
        title: state.title,
        seller: state.seller_id,
        currency: state.currency,
        start_price_minor: state.start_price_minor,
        price_minor: state.price_minor,
        next_minimum_minor,
        leader: state.leader_id,
        bid_count: state.bid_count,
        version,
        status: status.into(),
        starts_at: state.starts_at,
        ends_at: state.ends_at,
        closed_at: state.closed_at,
    }
}
