//! One item, for people and for scripts.
use crate::bidctl::{
    client,
    output::{Output, money, optional_time, time},
    settings::Settings,
};
use anyhow::Context;
use clap::Args;
use gavel::item::status_name;
use gavel_proto::v1;
use serde_json::{Value, json};

/// The columns of [`as_row`].
/// The last are left out where a terminal is too narrow.
pub(super) const HEADER: [&str; 8] = ["item", "title", "price", "status", "ends", "bids", "leader", "next minimum"];

#[derive(Args)]
pub(crate) struct Show {
    /// The item's id
    item_id: String,
    /// As of this version or a newer one, such as the sequence that a bid was answered
    #[arg(long, default_value_t = 0, value_name = "VERSION")]
    at_least_version: i64,
}

impl Show {
    pub(super) async fn run(
        &self,
        client: &v1::ItemServiceClient,
        settings: &Settings,
        output: Output,
    ) -> anyhow::Result<()> {
        let token = settings.token_if_any("bidder")?;
        let (item, source) = read(client, settings, token.as_deref(), &self.item_id, self.at_least_version).await?;
        let mut json = as_json(&item);
        json["source"] = source.as_str_name().into();
        let mut lines = lines(&item);
        let source = match source {
            v1::ReadSource::ReadModel => "the read model (Redis)",
            v1::ReadSource::Database => "the database",
            v1::ReadSource::Unspecified => "the reply does not say where",
        };
        lines.push(("read from", source.to_owned()));
        output.record(&json, &lines);
        Ok(())
    }
}

/// Reads an item as of at least that version, and where it was read from.
pub(crate) async fn read(
    client: &v1::ItemServiceClient,
    settings: &Settings,
    token: Option<&str>,
    item_id: &str,
    at_least_version: i64,
) -> anyhow::Result<(v1::Item, v1::ReadSource)> {
    let request = v1::GetItemRequest { item_id: item_id.to_owned(), at_least_version };
    let reply = client.get_item(client::request(request, token)).await;
    let reply = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
    let source = reply.source();
    Ok((reply.item.context("the reply has no item")?, source))
}

pub(super) fn as_row(item: &v1::Item) -> Vec<String> {
    vec![
        item.item_id.clone(),
        item.title.clone(),
        item.price_minor.map_or_else(|| "-".to_owned(), |price| money(price, &item.currency)),
        status_name(item.status()).to_owned(),
        time(item.ends_at.as_ref()),
        item.bid_count.to_string(),
        item.leader.clone(),
        minimum(item),
    ]
}

/// The lowest next bid, or that there is none.
fn minimum(item: &v1::Item) -> String {
    match (item.status(), item.next_minimum_minor) {
        (v1::ItemStatus::Open | v1::ItemStatus::Scheduled, 0) => "none: highest price reached".to_owned(),
        (_, 0) => "-".to_owned(),
        (_, minor) => money(minor, &item.currency),
    }
}

pub(super) fn lines(item: &v1::Item) -> Vec<(&'static str, String)> {
    let mut lines: Vec<_> = HEADER.into_iter().zip(as_row(item)).collect();
    lines.insert(2, ("seller", item.seller.clone()));
    lines.insert(5, ("starts", time(item.starts_at.as_ref())));
    if let Some(closed_at) = optional_time(item.closed_at.as_ref()) {
        lines.push((if item.cancel_reason.is_some() { "cancelled" } else { "closed" }, closed_at));
    }
    if let Some(reason) = item.cancel_reason.clone().filter(|reason| !reason.is_empty()) {
        lines.push(("reason", reason));
    }
    lines.push(("version", item.version.to_string()));
    lines
}

/// Shows an item after a call that changes it; of one that was made before, what had been done then.
pub(super) fn record_change(item: &v1::Item, done_before: Option<&'static str>, output: Output) {
    let (mut json, mut lines) = (as_json(item), lines(item));
    json["replayed"] = done_before.is_some().into();
    lines.extend(done_before.map(|done| (done, "before, with this key: nothing was done now".to_owned())));
    output.record(&json, &lines);
}

/// The API's own names and values.
pub(super) fn as_json(item: &v1::Item) -> Value {
    json!({
        "item_id": item.item_id,
        "title": item.title,
        "seller": item.seller,
        "currency": item.currency,
        "start_price_minor": item.start_price_minor,
        "price_minor": item.price_minor,
        "next_minimum_minor": item.next_minimum_minor,
        "leader": item.leader,
        "bid_count": item.bid_count,
        "version": item.version,
        "status": item.status().as_str_name(),
        "starts_at": optional_time(item.starts_at.as_ref()),
        "ends_at": optional_time(item.ends_at.as_ref()),
        "closed_at": optional_time(item.closed_at.as_ref()),
        "cancel_reason": item.cancel_reason,
    })
}
