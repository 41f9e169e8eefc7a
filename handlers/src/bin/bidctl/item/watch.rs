//! An item as it changes: a line for each change, in JSON a document for each.
use super::shown::as_json;
use crate::{
    client,
    output::{Output, money, say, time},
    settings::Settings,
};
use clap::Args;
use futures_util::StreamExt;
use gavel::item::status_name;
use gavel_proto::v1::{self, watch_item_response::Frame};
use serde_json::json;

#[derive(Args)]
pub(crate) struct Watch {
    /// The item's id
    item_id: String,
}

impl Watch {
    pub(super) async fn run(
        &self,
        client: &v1::ItemServiceClient,
        settings: &Settings,
        output: Output,
    ) -> anyhow::Result<()> {
        let token = settings.token_if_any("bidder")?;
        let request = v1::WatchItemRequest { item_id: self.item_id.clone(), known_version: 0 };
        let stream = client.watch_item(client::request(request, token.as_deref())).await;
        let mut stream = stream.map_err(|status| client::explained(settings, &status))?.into_inner();
        let mut known: Option<v1::Item> = None;
        while let Some(frame) = stream.next().await {
            match frame.map_err(|status| client::explained(settings, &status))?.frame {
                Some(Frame::Snapshot(item)) => known = Some(item),
                Some(Frame::Update(update)) => known = known.map(|item| moved_on(item, update)),
                Some(Frame::Heartbeat(heartbeat)) if output.json => {
                    say!(
                        "{}",
                        json!({ "heartbeat": { "version": heartbeat.version, "watchers": heartbeat.watchers, "stale": heartbeat.stale } })
                    );
                    continue;
                }
                Some(Frame::Heartbeat(_)) | None => continue,
            }
            if let Some(item) = &known {
                show(item, output);
            }
        }
        Ok(())
    }
}

fn show(item: &v1::Item, output: Output) {
    if output.json {
        return say!("{}", json!({ "item": as_json(item) }));
    }
    let price = item.price_minor.map_or_else(|| "no bid".to_owned(), |price| money(price, &item.currency));
    let leader = if item.leader.is_empty() { String::new() } else { format!(" by {}", item.leader) };
    let (status, ends) = (status_name(item.status()), time(item.ends_at.as_ref()));
    let bids = if item.bid_count == 1 { "1 bid".to_owned() } else { format!("{} bids", item.bid_count) };
    say!("version {}: {status}, {price}{leader}, {bids}, ends {ends}", item.version);
}

/// An update has everything that may change.
fn moved_on(item: v1::Item, update: v1::ItemUpdate) -> v1::Item {
    let v1::ItemUpdate {
        version,
        price_minor,
        next_minimum_minor,
        leader,
        bid_count,
        status,
        ends_at,
        closed_at,
        cancel_reason,
    } = update;
    v1::Item {
        version,
        price_minor,
        next_minimum_minor,
        leader,
        bid_count,
        status,
        ends_at,
        closed_at,
        cancel_reason,
        ..item
    }
}
