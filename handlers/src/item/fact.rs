//! What can happen to an item.
use gavel_proto::events_v1::item_event::Fact;

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
    /// An item was taken out of the auction.
    pub const CANCELLED: &str = "item.cancelled";

    /// All of them.
    pub const ALL: [&str; 5] = [CREATED, STARTED, BID_ACCEPTED, CLOSED, CANCELLED];
}

/// The routing key of an event is a matter of what it tells.
pub(super) const fn key_of(fact: &Fact) -> &'static str {
    match fact {
        Fact::Created(_) => routing_key::CREATED,
        Fact::Started(_) => routing_key::STARTED,
        Fact::BidAccepted(_) => routing_key::BID_ACCEPTED,
        Fact::Closed(_) => routing_key::CLOSED,
        Fact::Cancelled(_) => routing_key::CANCELLED,
    }
}
