//! One item as everyone sees it: from the read model, or from the database when Redis has nothing or does not answer.
use crate::{
    convert::uuid,
    item::{self, cache_key, shown},
};
use gavel_proto::{events_v1::ItemState, v1};
use gavel_runtime::{
    Io, Result,
    auth::{Access, Caller},
    cache::Versioned,
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
        let key = cache_key(&item_id.to_string());
        let held = io.cache().get(&key).await.inspect_err(|error| tracing::info!(%error, "read the database"));
        if let Some(item) = held.as_ref().ok().and_then(Option::as_ref).and_then(decoded) {
            return Ok(reply(item, v1::ReadSource::ReadModel));
        }
        let row = item::read(io.reads(), *item_id).await?;
        let state = row.state()?;
        if held.is_ok() {
            // A fill passes the same gate as an event: it can't put an older state over a newer one. It may fail: the
            // next reader tries again.
            let _ = io.cache().put_if_newer(&key, row.version, &state.encode_to_vec()).await;
        }
        Ok(reply(shown(state, row.version), v1::ReadSource::Database))
    }
}

fn decoded(held: &Versioned) -> Option<v1::Item> {
    Some(shown(ItemState::decode(&held.value[..]).ok()?, held.version))
}

fn reply(item: v1::Item, source: v1::ReadSource) -> v1::GetItemResponse {
    v1::GetItemResponse { item: Some(item), source: source.into() }
}
