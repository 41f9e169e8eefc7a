//! Bidding.
use crate::{
    client,
    output::{Output, time},
    settings::Settings,
};
use anyhow::bail;
use clap::Args;
use gavel_proto::v1;
use gavel_runtime::ids;
use serde_json::json;
use std::time::{Duration, Instant};

/// How long `--wait` waits for the worker.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks: a service lets one caller read some 200 times a second.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Args)]
pub(crate) struct PlaceBid {
    /// The item's id
    item_id: String,
    /// What you are willing to pay, in minor units: 1500 is 15.00
    #[arg(allow_negative_numbers = true)]
    amount_minor: i64,
    /// The idempotency key, a UUID: the same key never bids twice
    #[arg(long)]
    key: Option<String>,
    /// Wait until Redis shows the bid and the statistics, fed through RabbitMQ, count it, and say how long that took
    #[arg(long)]
    wait: bool,
}

impl PlaceBid {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let client = v1::BidServiceClient::new(client::config(&settings.url)?);
        let idempotency_key = self.key.clone().unwrap_or_else(|| ids::random().to_string());
        let request = v1::PlaceBidRequest {
            item_id: self.item_id.clone(),
            max_amount_minor: self.amount_minor,
            idempotency_key: idempotency_key.clone(),
        };
        let token = settings.token("bidder")?;
        let before = if self.wait { self.counted(settings, &token).await? } else { 0 };
        let reply = client.place_bid(client::request(request, Some(&token))).await;
        let reply = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
        let outcome = match reply.outcome() {
            v1::BidOutcome::Leading => "accepted, leading",
            v1::BidOutcome::Outbid => "accepted, outbid",
            v1::BidOutcome::Unspecified => "unknown",
        };
        let decided_at = time(reply.decided_at.as_ref());
        let mut json = json!({
            "bid_id": reply.bid_id, "outcome": outcome, "sequence": reply.sequence, "price_minor": reply.price_minor,
            "next_minimum_minor": reply.next_minimum_minor, "decided_at": decided_at, "idempotency_key": idempotency_key,
        });
        let mut lines = vec![
            ("bid", reply.bid_id.clone()),
            ("outcome", outcome.to_owned()),
            ("sequence (the item's version)", reply.sequence.to_string()),
            ("price (minor units)", reply.price_minor.to_string()),
            ("next minimum", reply.next_minimum_minor.to_string()),
            ("decided at", decided_at),
            ("idempotency key", idempotency_key),
        ];
        if self.wait {
            let (read_model_ms, statistics_ms) = self.consequences(settings, &token, &reply, before).await?;
            json["read_model_after_ms"] = read_model_ms.into();
            json["statistics_after_ms"] = statistics_ms.into();
            lines.push(("in the read model", format!("{read_model_ms} ms after the reply")));
            lines.push(("in the statistics", format!("{statistics_ms} ms after the reply (relayed through RabbitMQ)")));
        }
        output.record(&json, &lines);
        Ok(())
    }

    /// Milliseconds from the reply until the read model and until the statistics know of the bid.
    async fn consequences(
        &self,
        settings: &Settings,
        token: &str,
        bid: &v1::PlaceBidResponse,
        counted_before: i64,
    ) -> anyhow::Result<(u64, u64)> {
        let began = Instant::now();
        let items = v1::ItemServiceClient::new(client::config(&settings.url)?);
        let in_read_model = async || {
            let request = v1::GetItemRequest { item_id: self.item_id.clone(), at_least_version: 0 };
            let reply = items.get_item(client::request(request, Some(token))).await;
            let reply = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
            let version = reply.item.as_ref().map_or(0, |item| item.version);
            Ok(reply.source() == v1::ReadSource::ReadModel && version >= bid.sequence)
        };
        let read_model_ms = until(began, "the read model", in_read_model).await?;
        let counted = async || Ok(self.counted(settings, token).await? > counted_before);
        let statistics_ms = until(began, "the statistics", counted).await?;
        Ok((read_model_ms, statistics_ms))
    }

    /// How many of the caller's bids the statistics know, over all currencies.
    async fn counted(&self, settings: &Settings, token: &str) -> anyhow::Result<i64> {
        let users = v1::UserServiceClient::new(client::config(&settings.url)?);
        let reply = users.get_user_stats(client::request(v1::GetUserStatsRequest::default(), Some(token))).await;
        let reply = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
        Ok(reply.stats.iter().map(|stats| stats.bids_placed).sum())
    }
}

async fn until(began: Instant, what: &str, knows: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<u64> {
    while !knows().await? {
        if began.elapsed() > PATIENCE {
            bail!("the bid is accepted, but {what} does not know of it after {PATIENCE:?}: is bid-worker running?");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(u64::try_from(began.elapsed().as_millis())?)
}
