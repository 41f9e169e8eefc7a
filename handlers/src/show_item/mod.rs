//! One item as JSON over plain HTTP, straight from the database: `curl …/items/<item id>`.
use crate::item;
use crate::schema::bid_ceiling_minor;
use chrono::{DateTime, Utc};
use gavel_runtime::{
    Io, Result, http,
    spec::{Spec, Trigger},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `GET /items/:item_id`.
pub struct ShowItem;

/// The path's parameters.
#[derive(Deserialize)]
pub struct Query {
    item_id: Uuid,
}

/// Amounts are minor units of the currency, times RFC 3339.
#[derive(Serialize)]
pub struct Reply {
    item_id: Uuid,
    title: String,
    seller: String,
    currency: String,
    start_price_minor: i64,
    price_minor: Option<i64>,
    status: &'static str,
    next_minimum_minor: i64,
    leader: Option<String>,
    bid_count: i64,
    version: i64,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    closed_at: Option<DateTime<Utc>>,
    cancel_reason: Option<String>,
}

impl http::IoHandler for ShowItem {
    const SPEC: &'static Spec = &Spec::new("show_item", Trigger::Http("/items/:item_id"));
    type Query = Query;
    type Reply = Reply;

    async fn handle(io: &Io, query: &Query) -> Result<Reply> {
        let row = item::read(io.reads(), query.item_id).await?;
        // Whether it takes bids is a matter of the time as well.
        let shown = item::shown(row.state(bid_ceiling_minor(io))?, row.version, io.now());
        Ok(Reply {
            item_id: row.item_id,
            title: row.title,
            seller: row.seller_id,
            currency: row.currency,
            start_price_minor: row.start_price_minor,
            price_minor: row.price_minor,
            status: item::status_name(shown.status()),
            next_minimum_minor: shown.next_minimum_minor,
            leader: row.leader_id,
            bid_count: row.bid_count,
            version: row.version,
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            closed_at: row.closed_at,
            cancel_reason: row.cancel_reason,
        })
    }
}
