//! Items, newest first, a page at a time, from the database.
mod sql;

use crate::item::{ItemRow, shown};
use crate::schema::bid_ceiling_minor;
use chrono::DateTime;
use gavel_proto::v1::{self, ItemStatus};
use gavel_runtime::{
    Error, Io, Result,
    auth::{Access, Caller},
    rpc,
    spec::{Spec, Trigger},
    wire::{PageKey, page, page_key, page_size, uuid},
};
use uuid::Uuid;

/// `ItemService.ListItems`.
pub struct ListItems;

/// A checked request for a page.
pub struct Query {
    size: i64,
    from: From,
}

/// Which items, and where the page begins.
enum From {
    All(Uuid),
    Open(Uuid),
    Closed(Uuid),
    Cancelled(Uuid),
    Closing(PageKey),
    Scheduled(PageKey),
}

/// Pages in the order of ends or starts begin here.
const FIRST: PageKey = PageKey { at: DateTime::UNIX_EPOCH, id: Uuid::nil() };

impl rpc::IoHandler for ListItems {
    const SPEC: &'static Spec = &Spec::new("list_items", Trigger::Rpc("gavel.v1.ItemService/ListItems")).may_lag();
    const ACCESS: Access = Access::Public;
    type Request = v1::ListItemsRequest;
    type Query = Query;
    type Reply = v1::ListItemsResponse;

    fn parse(request: v1::ListItemsRequest, _: Option<&Caller>) -> Result<Query> {
        let token = request.page_token.as_str();
        let before = || if token.is_empty() { Ok(Uuid::max()) } else { uuid("page_token", token) };
        let from = match ItemStatus::try_from(request.status) {
            Ok(ItemStatus::Unspecified) => From::All(before()?),
            Ok(ItemStatus::Open) => From::Open(before()?),
            Ok(ItemStatus::Closed) => From::Closed(before()?),
            Ok(ItemStatus::Cancelled) => From::Cancelled(before()?),
            Ok(ItemStatus::Closing) => From::Closing(page_key(token)?.unwrap_or(FIRST)),
            Ok(ItemStatus::Scheduled) => From::Scheduled(page_key(token)?.unwrap_or(FIRST)),
            Err(_) => {
                return Err(Error::invalid(format!("status {} is unknown; allowed: 0 to 5", request.status)));
            }
        };
        Ok(Query { size: page_size(request.page_size)?, from })
    }

    async fn handle(io: &Io, query: &Query) -> Result<v1::ListItemsResponse> {
        let (reads, limit) = (io.reads(), query.size + 1);
        let rows = match query.from {
            From::All(before) => sql::all(reads, before, limit).await?,
            From::Open(before) => sql::not_closed(reads, before, limit).await?,
            From::Closed(before) => sql::closed(reads, before, limit).await?,
            From::Cancelled(before) => sql::cancelled(reads, before, limit).await?,
            From::Closing(PageKey { at, id }) => sql::closing(reads, (at, id), limit).await?,
            From::Scheduled(PageKey { at, id }) => sql::scheduled(reads, (at, id), limit).await?,
        };
        let token_of = |row: &ItemRow| match query.from {
            From::Closing(_) => PageKey { at: row.ends_at, id: row.item_id }.to_string(),
            From::Scheduled(_) => PageKey { at: row.starts_at, id: row.item_id }.to_string(),
            _ => row.item_id.to_string(),
        };
        let (rows, next_page_token) = page(rows, query.size, token_of);
        let (now, ceiling_minor) = (io.now(), bid_ceiling_minor(io));
        let items = rows.iter().map(|row| Ok(shown(row.state(ceiling_minor)?, row.version, now)));
        let mut items = items.collect::<Result<Vec<_>>>()?;
        match query.from {
            // One past its end is not open, whether that is recorded or not; nor is one before its start.
            From::Open(_) => items.retain(|item| item.status() == ItemStatus::Open),
            From::Closed(_) => items.retain(|item| item.status() == ItemStatus::Closed),
            From::All(_) | From::Cancelled(_) | From::Closing(_) | From::Scheduled(_) => {}
        }
        Ok(v1::ListItemsResponse { items, next_page_token })
    }
}
