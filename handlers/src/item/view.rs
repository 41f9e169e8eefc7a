//! What the API shows of an item: its public state, as it is at a time.
use chrono::{DateTime, Utc};
use gavel_proto::{events_v1::ItemState, v1};
use gavel_runtime::wire::timestamp;
use prost_types::Timestamp;

/// An item's status at that time, made from the rest of it.
pub fn status(state: &ItemState, now: DateTime<Utc>) -> v1::ItemStatus {
    let now = timestamp(now);
    let is_past = |at: &Option<Timestamp>| at.is_some_and(|at| (at.seconds, at.nanos) <= (now.seconds, now.nanos));
    match ended(state) {
        Some(status) => status,
        None if is_past(&state.ends_at) => v1::ItemStatus::Closing,
        None if is_past(&state.starts_at) => v1::ItemStatus::Open,
        None => v1::ItemStatus::Scheduled,
    }
}

/// The status of an item whose end is recorded; none while it is not.
const fn ended(state: &ItemState) -> Option<v1::ItemStatus> {
    match (&state.closed_at, &state.cancel_reason) {
        (_, Some(_)) => Some(v1::ItemStatus::Cancelled),
        (Some(_), None) => Some(v1::ItemStatus::Closed),
        (None, None) => None,
    }
}

/// Returns whether nothing can happen to the item any more.
pub const fn is_over(status: v1::ItemStatus) -> bool {
    matches!(status, v1::ItemStatus::Closed | v1::ItemStatus::Cancelled)
}

/// A status as people read it.
pub const fn status_name(status: v1::ItemStatus) -> &'static str {
    match status {
        v1::ItemStatus::Unspecified => "unknown",
        v1::ItemStatus::Scheduled => "scheduled",
        v1::ItemStatus::Open => "open",
        v1::ItemStatus::Closing => "closing",
        v1::ItemStatus::Closed => "closed",
        v1::ItemStatus::Cancelled => "cancelled",
    }
}

/// The API's view of a public state, at that time.
pub fn shown(state: ItemState, version: i64, now: DateTime<Utc>) -> v1::Item {
    let status = status(&state, now);
    shown_as(status, state, version)
}

/// The API's view of a public state when something had just happened to the item: it had started, and was not past its
/// end unless that is what had happened.
pub fn shown_just_then(state: ItemState, version: i64) -> v1::Item {
    let status = ended(&state).unwrap_or(v1::ItemStatus::Open);
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
        cancel_reason: state.cancel_reason,
    }
}

/// What of an item may change, of the API's view of it. A field that is new has to be put on either side.
pub fn update(item: &v1::Item) -> v1::ItemUpdate {
    let v1::Item {
        version,
        price_minor,
        next_minimum_minor,
        leader,
        bid_count,
        status,
        ends_at,
        closed_at,
        cancel_reason,
        // These stay as they are; a cancelled item's start is past.
        item_id: _,
        title: _,
        seller: _,
        currency: _,
        start_price_minor: _,
        starts_at: _,
    } = item;
    v1::ItemUpdate {
        version: *version,
        price_minor: *price_minor,
        next_minimum_minor: *next_minimum_minor,
        leader: leader.clone(),
        bid_count: *bid_count,
        status: *status,
        ends_at: *ends_at,
        closed_at: *closed_at,
        cancel_reason: cancel_reason.clone(),
    }
}
