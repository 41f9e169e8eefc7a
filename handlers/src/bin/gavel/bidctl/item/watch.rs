//! An item as it changes: a line for each change, in JSON a document for each.
use super::shown::as_json;
use crate::bidctl::{
    client,
    output::{Output, money, say, time},
    settings::Settings,
};
use clap::Args;
use futures_util::StreamExt;
use gavel::item::status_name;
use gavel_proto::v1::{self, watch_item_response::Frame};
use poem_grpc::{Code, Status};
use serde_json::json;
use std::time::{Duration, Instant};

/// A service that stops, as for a new version of it, is followed by another within this time, or not at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries to find it.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(crate) struct Watch {
    /// The item's id
    item_id: String,
}

/// What is known of the item, and since when nobody has said more of it.
struct Watched {
    item: Option<v1::Item>,
    heard: Instant,
}

impl Watch {
    pub(super) async fn run(
        &self,
        client: &v1::ItemServiceClient,
        settings: &Settings,
        output: Output,
    ) -> anyhow::Result<()> {
        let token = settings.token_if_any("bidder")?;
        let mut watched = Watched { item: None, heard: Instant::now() };
        loop {
            match self.follow(client, token.as_deref(), &mut watched, output).await {
                Ok(()) => return Ok(()),
                Err(status) if is_moving(&status, &watched) => tokio::time::sleep(PAUSE).await,
                Err(status) => return Err(client::explained(settings, &status)),
            }
        }
    }

    /// Shows what comes, from the version that is known on.
    async fn follow(
        &self,
        client: &v1::ItemServiceClient,
        token: Option<&str>,
        watched: &mut Watched,
        output: Output,
    ) -> Result<(), Status> {
        let known_version = watched.item.as_ref().map_or(0, |item| item.version);
        let request = v1::WatchItemRequest { item_id: self.item_id.clone(), known_version };
        let mut stream = client.watch_item(client::request(request, token)).await?.into_inner();
        while let Some(frame) = stream.next().await {
            let frame = frame?.frame;
            watched.heard = Instant::now();
            match frame {
                Some(Frame::Snapshot(item)) => watched.item = Some(item),
                Some(Frame::Update(update)) => watched.item = watched.item.take().map(|item| moved_on(item, update)),
                Some(Frame::Heartbeat(heartbeat)) if output.json => {
                    say!(
                        "{}",
                        json!({ "heartbeat": { "version": heartbeat.version, "watchers": heartbeat.watchers, "stale": heartbeat.stale } })
                    );
                    continue;
                }
                Some(Frame::Heartbeat(_)) | None => continue,
            }
            if let Some(item) = &watched.item {
                show(item, output);
            }
        }
        Ok(())
    }
}

/// Returns whether another service may go on where this one stopped.
fn is_moving(status: &Status, watched: &Watched) -> bool {
    let is_stopping = status.code() == Code::Unavailable || client::is_unanswered(status);
    is_stopping && watched.item.is_some() && watched.heard.elapsed() < PATIENCE
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
