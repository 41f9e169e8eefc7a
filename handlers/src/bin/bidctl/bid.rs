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
use poem_grpc::Status;
use prost_types::Timestamp;
use serde_json::json;
use std::time::{Duration, Instant};

/// How long `--wait` waits for the worker.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Args)]
pub(crate) struct PlaceBid {
    /// The item's id
    item_id: String,
    /// What you are willing to pay, in minor units: 1500 is 15.00
    amount_minor: i64,
    /// The idempotency key, a UUID: the same key never bids twice
    #[arg(long)]
    key: Option<String>,
    /// Wait until the bid's event has gone through RabbitMQ to the read model and the statistics, and say how long it took
    #[arg(long)]
    wait: bool,
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
            ("sequence", reply.sequence.to_string()),
            ("price (minor units)", reply.price_minor.to_string()),
            ("next minimum", reply.next_minimum_minor.to_string()),
            ("decided at", decided_at),
            ("idempotency key", idempotency_key),
        ];
        if self.wait {
            let (read_model_ms, statistics_ms) = self.consequences(settings, &token, &reply).await?;
            json["read_model_after_ms"] = read_model_ms.into();
            json["statistics_after_ms"] = statistics_ms.into();
            lines.push(("event relayed", format!("in the read model {read_model_ms} ms after the reply")));
            lines.push(("", format!("in the statistics {statistics_ms} ms after the reply")));
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
    ) -> anyhow::Result<(u64, u64)> {
        let began = Instant::now();
        let items = v1::ItemServiceClient::new(client::config(settings)?);
        let in_read_model = async || {
            let request = v1::GetItemRequest { item_id: self.item_id.clone() };
            let reply = items.get_item(client::request(request, Some(token))).await?.into_inner();
            let version = reply.item.as_ref().map_or(0, |item| item.version);
            Ok(reply.source() == v1::ReadSource::ReadModel && version >= bid.sequence)
        };
        let read_model_ms = until(settings, began, "the read model", in_read_model).await?;
        let users = v1::UserServiceClient::new(client::config(settings)?);
        let counted = async || {
            let request = v1::GetUserStatsRequest::default();
            let reply = users.get_user_stats(client::request(request, Some(token))).await?.into_inner();
            // Both by the database's clock: figures as new as the bid include it.
            Ok(reply.updated_at.map(instant) >= bid.decided_at.map(instant))
        };
        let statistics_ms = until(settings, began, "the statistics", counted).await?;
        Ok((read_model_ms, statistics_ms))
    }
}

async fn until(
    settings: &Settings,
    began: Instant,
    what: &str,
    knows: impl AsyncFn() -> Result<bool, Status>,
) -> anyhow::Result<u64> {
    while !knows().await.map_err(|status| client::explained(settings, &status))? {
        if began.elapsed() > PATIENCE {
            bail!("the bid is accepted, but {what} does not know of it after {PATIENCE:?}: is bid-worker running?");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(u64::try_from(began.elapsed().as_millis())?)
}

fn instant(at: Timestamp) -> (i64, i32) {
    (at.seconds, at.nanos)
}
