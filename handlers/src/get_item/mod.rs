//! One item as everyone sees it: from the read model, or from the database when Redis has nothing or does not answer.
use crate::{
    convert::uuid,
    item::{self, cache_key, shown},
};
use gavel_proto::{events_v1::ItemState, v1};
use gavel_runtime::{
    Error, Io, Result,
    auth::{Access, Caller},
    cache::{Source, Versioned},
    rpc,
    spec::{Spec, Trigger},
};
use prost::Message;
use uuid::Uuid;

/// `ItemService.GetItem`.
pub struct GetItem;

impl rpc::IoHandler for GetItem {
    const SPEC: &'static Spec = &Spec::new("get_item", Trigger::Rpc("gavel.v1.ItemService/GetItem"));
    const ACCESS: Access = Access::Public;
    type Request = v1::GetItemRequest;
    type Query = Uuid;
    type Reply = v1::GetItemResponse;

    fn parse(request: v1::GetItemRequest, _: Option<&Caller>) -> Result<Uuid> {
        uuid("item_id", &request.item_id)
    }

    async fn handle(io: &Io, item_id: &Uuid) -> Result<v1::GetItemResponse> {
        let load = async {
            let row = item::read(io.reads(), *item_id).await?;
            Ok(Versioned { version: row.version, value: row.state()?.encode_to_vec() })
        };
        let (found, source) = io.cache().read_through(&cache_key(&item_id.to_string()), load, agree).await?;
        let state = ItemState::decode(&found.value[..]).map_err(Error::internal)?;
        let source = match source {
            Source::Cache => v1::ReadSource::ReadModel,
            Source::Truth => v1::ReadSource::Database,
        };
        Ok(v1::GetItemResponse { item: Some(shown(state, found.version, io.now())), source: source.into() })
    }
}

/// Another version of this program may have written a field that this one does not know.
fn agree(held: &[u8], truth: &[u8]) -> bool {
    held == truth || ItemState::decode(held).is_ok_and(|held| Ok(held) == ItemState::decode(truth))
}
