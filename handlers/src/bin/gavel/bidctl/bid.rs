//! Bidding.
use crate::bidctl::{
    client, item, minor,
    output::{Output, money, optional_time, time},
    settings::Settings,
};
use anyhow::bail;
use clap::Args;
use gavel_proto::v1;
use gavel_runtime::ids;
use serde_json::json;
use std::time::{Duration, Instant};

/// Time for which `--wait` waits for the worker.
const PATIENCE: Duration = Duration::from_secs(10);
/// Interval at which it looks: a service lets one caller read some 200 times a second.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Args)]
pub(crate) struct PlaceBid {
    /// The item's id
    item_id: String,
    /// What you are willing to pay, in minor units: 1500 is 15.00
    #[arg(allow_negative_numbers = true, value_parser = minor::units)]
    amount_minor: i64,
    /// The idempotency key, a UUID: the same key never bids twice
    #[arg(long)]
    key: Option<String>,
    /// Wait until Redis shows the bid and the statistics, fed through RabbitMQ, count it, and say how long that took
    #[arg(long)]
    wait: bool,
}

/// Milliseconds from the reply until each knew of the bid, as far as they do.
#[derive(Default)]
struct Consequences {
    read_model_ms: Option<u64>,
    statistics_ms: Option<u64>,
}

impl PlaceBid {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let client = v1::BidServiceClient::new(client::config(settings)?);
        let idempotency_key = self.key.clone().unwrap_or_else(|| ids::random().to_string());
        let request = v1::PlaceBidRequest {
            item_id: self.item_id.clone(),
            max_amount_minor: self.amount_minor,
            idempotency_key: idempotency_key.clone(),
        };
        let token = settings.token("bidder")?;
        let before = if self.wait { Some(self.counted(settings, &token).await?) } else { None };
        let reply = client.place_bid(client::request(request, Some(&token))).await;
        let reply = reply.map_err(|status| client::explained(settings, &status))?;
        let is_replayed = client::is_replayed(&reply);
        let reply = reply.into_inner();
        // Amounts are in the item's currency, and one's own bid is to be seen.
        let items = v1::ItemServiceClient::new(client::config(settings)?);
        // The bid is made: what can't be read now is no reason not to say so.
        let read = item::read(&items, settings, Some(&token), &self.item_id, reply.sequence).await;
        let currency = read.map_or_else(|_| "(currency unknown)".to_owned(), |(item, _)| item.currency);
        let mut json = json!({
            "bid_id": reply.bid_id, "outcome": reply.outcome().as_str_name(), "replayed": is_replayed,
            "sequence": reply.sequence, "currency": currency, "price_minor": reply.price_minor,
            "next_minimum_minor": reply.next_minimum_minor, "decided_at": optional_time(reply.decided_at.as_ref()),
            "idempotency_key": idempotency_key,
        });
        let mut lines = shown(&reply, is_replayed, &currency);
        lines.push(("idempotency key", idempotency_key));
        let mut known = Ok(());
        if self.wait {
            let since = before.filter(|_| !is_replayed);
            let mut learnt = Consequences::default();
            known = self.consequences(settings, &token, &reply, since, &mut learnt).await;
            json["read_model_after_ms"] = learnt.read_model_ms.into();
            json["statistics_after_ms"] = learnt.statistics_ms.into();
            if let Some(ms) = learnt.read_model_ms {
                lines.push(("in the read model", format!("{ms} ms after the reply")));
            }
            if let Some(ms) = learnt.statistics_ms {
                lines.push(("in the statistics", format!("{ms} ms after the reply (relayed through RabbitMQ)")));
            }
        }
        // It is made, whoever does not know of it yet.
        output.record(&json, &lines);
        known
    }

    /// Waits until the read model and, where it is new, until the statistics know of the bid.
    async fn consequences(
        &self,
        settings: &Settings,
        token: &str,
        bid: &v1::PlaceBidResponse,
        counted_before: Option<i64>,
        learnt: &mut Consequences,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let items = v1::ItemServiceClient::new(client::config(settings)?);
        let in_read_model = async || {
            let (item, source) = item::read(&items, settings, Some(token), &self.item_id, 0).await?;
            Ok(source == v1::ReadSource::ReadModel && item.version >= bid.sequence)
        };
        learnt.read_model_ms = Some(until(began, "the read model does", in_read_model).await?);
        let Some(counted_before) = counted_before else { return Ok(()) };
        let counted = async || Ok(self.counted(settings, token).await? > counted_before);
        learnt.statistics_ms = Some(until(began, "the statistics do", counted).await?);
        Ok(())
    }

    /// Returns how many of the caller's bids the statistics know, over all currencies.
    async fn counted(&self, settings: &Settings, token: &str) -> anyhow::Result<i64> {
        let users = v1::UserServiceClient::new(client::config(settings)?);
        let reply = users.get_user_stats(client::request(v1::GetUserStatsRequest::default(), Some(token))).await;
        let reply = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
        Ok(reply.stats.iter().map(|stats| stats.bids_placed).sum())
    }
}

fn shown(reply: &v1::PlaceBidResponse, is_replayed: bool, currency: &str) -> Vec<(&'static str, String)> {
    let outcome = match reply.outcome() {
        v1::BidOutcome::Leading => "accepted, leading",
        v1::BidOutcome::Outbid => "accepted, outbid",
        v1::BidOutcome::Unspecified => "unknown",
    };
    let when = if is_replayed { ", when it was first made: nothing was done now" } else { "" };
    let next = match reply.next_minimum_minor {
        0 => "none: highest price reached".to_owned(),
        minor => money(minor, currency),
    };
    vec![
        ("bid", reply.bid_id.clone()),
        ("outcome", format!("{outcome}{when}")),
        ("sequence (the item's version)", reply.sequence.to_string()),
        ("price", money(reply.price_minor, currency)),
        ("next minimum", next),
        ("decided at", time(reply.decided_at.as_ref())),
    ]
}

async fn until(began: Instant, what: &str, knows: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<u64> {
    while !knows().await? {
        if began.elapsed() > PATIENCE {
            bail!("the bid is accepted, but {what} not know of it after {PATIENCE:?}: is bid-worker running?");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(u64::try_from(began.elapsed().as_millis())?)
}
