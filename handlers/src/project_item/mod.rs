//! Keeps the read model: the newest public state of each item, in Redis, moved forward only.
use crate::item::{cache_key, routing_key};
use gavel_proto::events_v1::ItemEvent;
use gavel_runtime::{
    Error, Io, Result, message,
    spec::{Limits, Spec, Trigger},
};
use prost::Message;

/// The consumer.
pub struct ProjectItem;

impl message::IoHandler for ProjectItem {
    const SPEC: &'static Spec = &Spec::new(
        "project_item",
        Trigger::Message(&[routing_key::CREATED, routing_key::BID_ACCEPTED, routing_key::CLOSED]),
    )
    .limits(Limits::DEFAULT.concurrency(16));
    type Message = ItemEvent;

    async fn handle(io: &Io, event: &ItemEvent) -> Result<()> {
        let item = event.item.as_ref().ok_or_else(|| Error::invalid("the event carries no item"))?;
        io.cache().put_if_newer(&cache_key(&item.item_id), event.version, &item.encode_to_vec()).await?;
        Ok(())
    }
}
