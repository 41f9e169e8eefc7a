//! What the API shows of an item: its public state, as it is at a time.
use chrono::{DateTime, Utc};
use gavel_proto::{events_v1::ItemState, v1};
use gavel_runtime::wire::timestamp;
use prost_types::Timestamp;

/// An item's status at that time. Here and in [`shown_just_then`], and nowhere else, it is made from the rest.
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

/// Returns what of an item may change, of the API's view of it.
pub fn update(item: &v1::Item) -> v1::ItemUpdate {
    v1::ItemUpdate {
        version: item.version,
        price_minor: item.price_minor,
        next_minimum_minor: item.next_minimum_minor,
        leader: item.leader.clone(),
        bid_count: item.bid_count,
        status: item.status,
        ends_at: item.ends_at,
        closed_at: item.closed_at,
        cancel_reason: item.cancel_reason.clone(),
    }
}
