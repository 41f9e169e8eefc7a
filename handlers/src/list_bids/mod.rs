//! The accepted bids of one item, newest first, a page at a time.
mod sql;

use crate::item;
use crate::schema::WIDE_BID_AMOUNTS;
use gavel_proto::v1;
use gavel_runtime::changes::Phase;
use gavel_runtime::{
    Error, Io, Result,
    auth::{Access, Caller},
    rpc,
    spec::{Spec, Trigger},
    wire::{page, page_size, timestamp, uuid},
};
use uuid::Uuid;

/// `BidService.ListBids`.
pub struct ListBids;

/// A checked request for a page.
pub struct Query {
    item_id: Uuid,
    size: i64,
    before: i64,
}

impl rpc::IoHandler for ListBids {
    const SPEC: &'static Spec = &Spec::new("list_bids", Trigger::Rpc("gavel.v1.BidService/ListBids")).may_lag();
    const ACCESS: Access = Access::Public;
    type Request = v1::ListBidsRequest;
    type Query = Query;
    type Reply = v1::ListBidsResponse;

    fn parse(request: v1::ListBidsRequest, _: Option<&Caller>) -> Result<Query> {
        let token = Some(request.page_token.as_str()).filter(|token| !token.is_empty());
        // The first page begins before the last number there is.
        let before = token.map_or(Ok(i64::MAX), str::parse);
        let before = before.map_err(|_| Error::invalid("page_token is not one this service gave out"))?;
        Ok(Query { item_id: uuid("item_id", &request.item_id)?, size: page_size(request.page_size)?, before })
    }

    async fn handle(io: &Io, query: &Query) -> Result<v1::ListBidsResponse> {
        let (reads, limit) = (io.reads(), query.size + 1);
        let rows = match io.phase(WIDE_BID_AMOUNTS) {
            Phase::Expanded => sql::page_being_filled(reads, query.item_id, query.before, limit).await?,
            Phase::Filled | Phase::Contracted | Phase::Dropped => {
                sql::page(reads, query.item_id, query.before, limit).await?
            }
        };
        if rows.is_empty() {
            // An item without bids is an empty list, one that does not exist an error.
            item::read(io.reads(), query.item_id).await?;
        }
        let (rows, next_page_token) = page(rows, query.size, |row| row.sequence.to_string());
        let shown = |row: sql::BidRow| v1::Bid {
            bid_id: row.bid_id.to_string(),
            sequence: row.sequence,
            bidder: row.bidder_id,
            amount_minor: row.amount_minor,
            decided_at: Some(timestamp(row.decided_at)),
        };
        Ok(v1::ListBidsResponse { bids: rows.into_iter().map(shown).collect(), next_page_token })
    }
}
