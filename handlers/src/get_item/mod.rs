//! One item as everyone sees it: from the read model, or from the database when Redis has nothing or does not answer.
use crate::item::{self, agree, cache_key, shown};
use crate::schema::bid_ceiling_minor;
use gavel_proto::{events_v1::ItemState, v1};
use gavel_runtime::{
    Class, Error, Io, Result,
    auth::{Access, Caller},
    redis::{Source, Versioned},
    rpc,
    spec::{Spec, Trigger},
    wire::{uuid, whole_number},
};
use prost::Message;
use uuid::Uuid;

/// `ItemService.GetItem`.
pub struct GetItem;

/// Which item, and which version of it the caller knows of.
pub struct Query {
    item_id: Uuid,
    at_least_version: i64,
}

impl rpc::IoHandler for GetItem {
    const SPEC: &'static Spec = &Spec::new("get_item", Trigger::Rpc("gavel.v1.ItemService/GetItem"));
    const ACCESS: Access = Access::Public;
    type Request = v1::GetItemRequest;
    type Query = Query;
    type Reply = v1::GetItemResponse;

    fn parse(request: v1::GetItemRequest, _: Option<&Caller>) -> Result<Query> {
        let at_least_version = whole_number("at_least_version", request.at_least_version)?;
        Ok(Query { item_id: uuid("item_id", &request.item_id)?, at_least_version })
    }

    async fn handle(io: &Io, query: &Query) -> Result<v1::GetItemResponse> {
        let load = async || {
            let row = item::read(io.reads(), query.item_id).await?;
            Ok(Versioned { version: row.version, value: row.state(bid_ceiling_minor(io))?.encode_to_vec() })
        };
        let key = cache_key(&query.item_id.to_string());
        let (mut found, mut source) = io.cache().read_through(&key, load(), agree).await?;
        if found.version < query.at_least_version {
            // The read model is moments behind; what was committed the database has.
            (found, source) = (load().await?, Source::Truth);
        }
        if found.version < query.at_least_version {
            return Err(not_yet(query.at_least_version, found.version));
        }
        let state = ItemState::decode(&found.value[..]).map_err(Error::internal)?;
        let source = match source {
            Source::Cache => v1::ReadSource::ReadModel,
            Source::Truth => v1::ReadSource::Database,
        };
        Ok(v1::GetItemResponse { item: Some(shown(state, found.version, io.now())), source: source.into() })
    }
}

fn not_yet(wanted: i64, version: i64) -> Error {
    let message = format!("the item is at version {version}; allowed: at_least_version up to that, not {wanted}");
    Error::new(Class::Refused, message)
}
