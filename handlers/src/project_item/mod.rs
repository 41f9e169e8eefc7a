//! Keeps the read model: the newest public state of each item, in Redis, moved forward only, many at a time.

use crate::item::{cache_key, routing_key};
use gavel_proto::events_v1::ItemEvent;
use gavel_runtime::{
    Error, Io, Member, Result,
    batch::Verdicts,
    message,
    redis::Put,
    spec::{Batch, Spec, Trigger},
};
use prost::Message;
use std::collections::HashMap;

/// The consumer.
pub struct ProjectItem;

impl message::IoBatchHandler for ProjectItem {
    const SPEC: &'static Spec =
        &Spec::new("project_item", Trigger::Message(&routing_key::ALL)).batched(Batch::DEFAULT.lanes(1));
    type Message = ItemEvent;

    async fn handle(io: &Io, batch: &[Member<ItemEvent>]) -> Result<Verdicts<()>> {
        let mut newest: HashMap<&str, Put> = HashMap::new();
        let verdicts = batch.iter().map(|event| keep_newest(&event.input, &mut newest)).collect();
        io.cache().put_all_if_newer(&newest.into_values().collect::<Vec<_>>()).await?;
        Ok(verdicts)
    }
}

/// Of several states of an item only the newest is worth writing.
fn keep_newest<'a>(event: &'a ItemEvent, newest: &mut HashMap<&'a str, Put>) -> Result<()> {
    let item = event.item.as_ref().ok_or_else(|| Error::invalid("the event carries no item"))?;
    if newest.get(item.item_id.as_str()).is_none_or(|put| put.version < event.version) {
        let put = Put { key: cache_key(&item.item_id), version: event.version, value: item.encode_to_vec() };
        newest.insert(&item.item_id, put);
    }
    Ok(())
}
