//! Bidding.
use crate::{
    client,
    output::{Output, time},
    settings::Settings,
};
use clap::Args;
use gavel_proto::v1;
use gavel_runtime::ids;
use serde_json::json;

#[derive(Args)]
pub(crate) struct PlaceBid {
    /// The item's id
    item_id: String,
    /// What you are willing to pay, in minor units: 1500 is 15.00
    amount_minor: i64,
    /// The idempotency key, a UUID: the same key never bids twice
    #[arg(long)]
    key: Option<String>,
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
        let json = json!({
            "bid_id": reply.bid_id, "outcome": outcome, "sequence": reply.sequence, "price_minor": reply.price_minor,
            "next_minimum_minor": reply.next_minimum_minor, "decided_at": decided_at, "idempotency_key": idempotency_key,
        });
        let lines = [
            ("bid", reply.bid_id),
            ("outcome", outcome.to_owned()),
            ("sequence", reply.sequence.to_string()),
            ("price (minor units)", reply.price_minor.to_string()),
            ("next minimum", reply.next_minimum_minor.to_string()),
            ("decided at", decided_at),
            ("idempotency key", idempotency_key),
        ];
        output.record(&json, &lines);
        Ok(())
    }
}
