//! Items.
use crate::{
    client,
    output::{Output, money, time},
    settings::Settings,
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use gavel_proto::v1;
use gavel_runtime::{clock, ids};
use prost_types::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Subcommand)]
pub(crate) enum Item {
    /// Publish an item (role seller)
    Create(Create),
    /// List items, newest first
    List(List),
    /// Show one item
    Show(Show),
}

#[derive(Args)]
pub(crate) struct Create {
    /// What it is
    #[arg(long)]
    title: String,
    /// ISO 4217 code
    #[arg(long, default_value = "EUR")]
    currency: String,
    /// The lowest first bid, in minor units: 1000 is 10.00
    #[arg(long, allow_negative_numbers = true)]
    start_price_minor: i64,
    /// When bidding ends, from now: 90s, 10m, 2h, 3d
    #[arg(long, value_parser = duration)]
    ends_in: Duration,
    /// The idempotency key, a UUID: the same key never makes a second item
    #[arg(long)]
    key: Option<String>,
}

#[derive(Args)]
pub(crate) struct List {
    /// Only open, or only closed ones
    #[arg(long, value_parser = ["open", "closed"])]
    status: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20)]
    limit: i32,
}

#[derive(Args)]
pub(crate) struct Show {
    /// The item's id
    item_id: String,
}

impl Item {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let client = v1::ItemServiceClient::new(client::config(&settings.url)?);
        match self {
            Self::Create(create) => create.run(&client, settings, output).await,
            Self::List(list) => list.run(&client, settings, output).await,
            Self::Show(show) => show.run(&client, settings, output).await,
        }
    }
}

impl Create {
    async fn run(&self, client: &v1::ItemServiceClient, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let ends_at = clock::wall() + self.ends_in;
        let request = v1::CreateItemRequest {
            idempotency_key: self.key.clone().unwrap_or_else(|| ids::random().to_string()),
            title: self.title.clone(),
            currency: self.currency.clone(),
            start_price_minor: self.start_price_minor,
            starts_at: None,
            ends_at: Some(Timestamp { seconds: ends_at.timestamp(), nanos: 0 }),
        };
        let token = settings.token("seller")?;
        let reply = client.create_item(client::request(request, Some(&token))).await;
        let reply = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
        let item = reply.item.context("the reply has no item")?;
        output.record(&as_json(&item), &lines(&item));
        Ok(())
    }
}

impl List {
    async fn run(&self, client: &v1::ItemServiceClient, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let status = match self.status.as_deref() {
            Some("open") => v1::ItemStatus::Open,
            Some("closed") => v1::ItemStatus::Closed,
            _ => v1::ItemStatus::Unspecified,
        };
        let request = v1::ListItemsRequest { page_size: self.limit, page_token: String::new(), status: status.into() };
        let token = settings.token_if_any("bidder")?;
        let reply = client.list_items(client::request(request, token.as_deref())).await;
        let items = reply.map_err(|status| client::explained(settings, &status))?.into_inner().items;
        let rows: Vec<_> = items.iter().map(row).collect();
        let header = ["item", "title", "price", "next minimum", "leader", "bids", "status", "ends"];
        output.table(&items.iter().map(as_json).collect(), &header, &rows);
        Ok(())
    }
}

impl Show {
    async fn run(&self, client: &v1::ItemServiceClient, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let request = v1::GetItemRequest { item_id: self.item_id.clone(), at_least_version: 0 };
        let token = settings.token_if_any("bidder")?;
        let reply = client.get_item(client::request(request, token.as_deref())).await;
        let reply = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
        let source = match reply.source() {
            v1::ReadSource::ReadModel => "the read model (Redis)",
            v1::ReadSource::Database => "the database",
            v1::ReadSource::Unspecified => bail!("the reply does not say where it comes from"),
        };
        let item = reply.item.context("the reply has no item")?;
        let mut json = as_json(&item);
        json["source"] = source.into();
        let mut lines = lines(&item);
        lines.push(("read from", source.to_owned()));
        output.record(&json, &lines);
        Ok(())
    }
}

fn row(item: &v1::Item) -> Vec<String> {
    let price = item.price_minor.map_or_else(|| "-".to_owned(), |price| money(price, &item.currency));
    let closed = item.next_minimum_minor == 0;
    let next_minimum = if closed { "-".to_owned() } else { money(item.next_minimum_minor, &item.currency) };
    vec![
        item.item_id.clone(),
        item.title.clone(),
        price,
        next_minimum,
        item.leader.clone(),
        item.bid_count.to_string(),
        status(item).to_owned(),
        time(item.ends_at.as_ref()),
    ]
}

fn lines(item: &v1::Item) -> Vec<(&'static str, String)> {
    let names = ["item", "title", "price", "next minimum", "leader", "bids", "status", "ends"];
    let mut lines: Vec<_> = names.into_iter().zip(row(item)).collect();
    lines.insert(2, ("seller", item.seller.clone()));
    lines.push(("version", item.version.to_string()));
    lines
}

fn as_json(item: &v1::Item) -> Value {
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
        "status": status(item),
        "starts_at": time(item.starts_at.as_ref()),
        "ends_at": time(item.ends_at.as_ref()),
    })
}

fn status(item: &v1::Item) -> &'static str {
    gavel::item::status_name(item.status())
}

/// `90s`, `10m`, `2h`, `3d`.
fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is no duration; allowed: a whole number and s, m, h or d, such as 10m");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(refuse)?;
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(refuse()),
    };
    number.checked_mul(unit_s).map(Duration::from_secs).ok_or_else(refuse)
}
