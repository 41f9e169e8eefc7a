//! Items, newest first, a page at a time, from the database.
mod sql;

use crate::{
    convert::{page, page_size, uuid},
    item::shown,
};
use gavel_proto::v1;
use gavel_runtime::{
    Error, Io, Result,
    auth::{Access, Caller},
    rpc,
    spec::{Spec, Trigger},
};
use uuid::Uuid;

/// `ItemService.ListItems`.
pub struct ListItems;

/// A checked request for a page.
pub struct Query {
    size: i64,
    after: Option<Uuid>,
    closed: Option<bool>,
}

impl rpc::IoHandler for ListItems {
    const SPEC: &'static Spec = &Spec::new("list_items", Trigger::Rpc("gavel.v1.ItemService/ListItems"));
    const ACCESS: Access = Access::Public;
    type Request = v1::ListItemsRequest;
    type Query = Query;
    type Reply = v1::ListItemsResponse;

    fn parse(request: v1::ListItemsRequest, _: Option<&Caller>) -> Result<Query> {
        let token = Some(request.page_token.as_str()).filter(|token| !token.is_empty());
        let closed = match v1::ItemStatus::try_from(request.status) {
            Ok(v1::ItemStatus::Unspecified) => None,
            Ok(v1::ItemStatus::Open) => Some(false),
            Ok(v1::ItemStatus::Closed) => Some(true),
            Err(_) => {
                return Err(Error::invalid(format!("status {} is unknown; allowed: 0, 1, 2", request.status)));
            }
        };
        let after = token.map(|token| uuid("page_token", token)).transpose()?;
        Ok(Query { size: page_size(request.page_size)?, after, closed })
    }

    async fn handle(io: &Io, query: &Query) -> Result<v1::ListItemsResponse> {
        let rows = sql::page(io.reads(), query.after, query.closed, query.size + 1).await?;
        let (rows, next_page_token) = page(rows, query.size, |row| row.item_id.to_string());
        let items = rows.iter().map(|row| Ok(shown(row.state()?, row.version))).collect::<Result<_>>()?;
        Ok(v1::ListItemsResponse { items, next_page_token })
    }
}
