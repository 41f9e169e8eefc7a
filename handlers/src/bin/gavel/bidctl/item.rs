//! Items.
mod cancel;
mod create;
mod shown;
mod watch;

pub(crate) use shown::read;

use crate::bidctl::{
    client,
    ops::{PAGE, limit, pages},
    output::{Output, money, time},
    settings::Settings,
};
use clap::{Args, Subcommand};
use gavel::item::status_name;
use gavel_proto::v1;
use serde_json::json;
use shown::{HEADER, as_json, as_row};

#[derive(Subcommand)]
pub(crate) enum Item {
    /// Publish an item (role seller)
    Create(create::Create),
    /// Take an item out of the auction (role seller, or ops with a reason)
    Cancel(cancel::Cancel),
    /// List items, newest first
    List(List),
    /// Show one item
    Show(shown::Show),
    /// List the accepted bids of an item, newest first
    Bids(Bids),
    /// Show an item as it changes, until it is over
    Watch(watch::Watch),
}

#[derive(Args)]
pub(crate) struct List {
    /// Only items of this status
    #[arg(long, value_parser = ["scheduled", "open", "closing", "closed", "cancelled"])]
    status: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20, value_parser = limit)]
    limit: usize,
}

#[derive(Args)]
pub(crate) struct Bids {
    /// The item's id
    item_id: String,
    /// At most this many
    #[arg(long, default_value_t = 20, value_parser = limit)]
    limit: usize,
}

impl Item {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let client = v1::ItemServiceClient::new(client::config(settings)?);
        match self {
            Self::Create(create) => create.run(&client, settings, output).await,
            Self::Cancel(cancel) => cancel.run(&client, settings, output).await,
            Self::List(list) => list.run(&client, settings, output).await,
            Self::Show(show) => show.run(&client, settings, output).await,
            Self::Bids(bids) => bids.run(&client, settings, output).await,
            Self::Watch(watch) => watch.run(&client, settings, output).await,
        }
    }
}

impl List {
    async fn run(&self, client: &v1::ItemServiceClient, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let all = [
            v1::ItemStatus::Scheduled,
            v1::ItemStatus::Open,
            v1::ItemStatus::Closing,
            v1::ItemStatus::Closed,
            v1::ItemStatus::Cancelled,
        ];
        let wanted = all.into_iter().find(|status| self.status.as_deref() == Some(status_name(*status)));
        let status = wanted.unwrap_or_default().into();
        let token = settings.token_if_any("bidder")?;
        let page = async |page_token| {
            let request = v1::ListItemsRequest { page_size: PAGE, page_token, status };
            let reply = client.list_items(client::request(request, token.as_deref())).await;
            let reply = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
            Ok((reply.items, reply.next_page_token))
        };
        let (items, is_more) = pages(self.limit, page).await?;
        let json = json!({ "items": items.iter().map(as_json).collect::<Vec<_>>(), "more": is_more });
        output.table(&json, &HEADER, &items.iter().map(as_row).collect::<Vec<_>>());
        output.more(is_more);
        Ok(())
    }
}

impl Bids {
    async fn run(&self, items: &v1::ItemServiceClient, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let token = settings.token_if_any("bidder")?;
        // Bids are in the item's currency.
        let item = read(items, settings, token.as_deref(), &self.item_id, 0).await?.0;
        let client = v1::BidServiceClient::new(client::config(settings)?);
        let page = async |page_token| {
            let request = v1::ListBidsRequest { item_id: self.item_id.clone(), page_size: PAGE, page_token };
            let reply = client.list_bids(client::request(request, token.as_deref())).await;
            let reply = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
            Ok((reply.bids, reply.next_page_token))
        };
        let (bids, is_more) = pages(self.limit, page).await?;
        let as_json = |bid: &v1::Bid| {
            json!({
                "bid_id": bid.bid_id, "sequence": bid.sequence, "bidder": bid.bidder, "amount_minor": bid.amount_minor,
                "decided_at": time(bid.decided_at.as_ref()),
            })
        };
        let as_row = |bid: &v1::Bid| {
            let amount = money(bid.amount_minor, &item.currency);
            vec![bid.sequence.to_string(), bid.bidder.clone(), amount, time(bid.decided_at.as_ref())]
        };
        let json = json!({
            "item_id": item.item_id, "currency": item.currency, "bids": bids.iter().map(as_json).collect::<Vec<_>>(),
            "more": is_more,
        });
        let rows: Vec<_> = bids.iter().map(as_row).collect();
        output.table(&json, &["sequence", "bidder", "amount", "decided at"], &rows);
        output.more(is_more);
        Ok(())
    }
}
