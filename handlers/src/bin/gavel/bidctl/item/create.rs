//! Publishing one.
use super::shown::record_change;
use crate::bidctl::{client, duration, minor, output::Output, settings::Settings};
use anyhow::Context;
use clap::Args;
use gavel_proto::v1;
use gavel_runtime::ids;
use std::time::Duration;

#[derive(Args)]
pub(crate) struct Create {
    /// What it is
    #[arg(long)]
    title: String,
    /// ISO 4217 code
    #[arg(long, default_value = "EUR")]
    currency: String,
    /// The lowest first bid, in minor units: 1000 is 10.00
    #[arg(long, allow_negative_numbers = true, value_parser = minor::units)]
    start_price_minor: i64,
    /// When bidding starts, from now by the service's clock; at once where left out
    #[arg(long, value_parser = duration::parse)]
    starts_in: Option<Duration>,
    /// When bidding ends, from now by the service's clock: 90s, 10m, 1h30m, 3d
    #[arg(long, value_parser = duration::parse)]
    ends_in: Duration,
    /// The idempotency key, a UUID: the same key never makes a second item
    #[arg(long)]
    key: Option<String>,
}

impl Create {
    pub(super) async fn run(
        &self,
        client: &v1::ItemServiceClient,
        settings: &Settings,
        output: Output,
    ) -> anyhow::Result<()> {
        let within = |duration: Duration| {
            let seconds = i64::try_from(duration.as_secs()).context("a duration that long")?;
            anyhow::Ok(prost_types::Duration { seconds, nanos: 0 })
        };
        let request = v1::CreateItemRequest {
            idempotency_key: self.key.clone().unwrap_or_else(|| ids::random().to_string()),
            title: self.title.clone(),
            currency: self.currency.clone(),
            start_price_minor: self.start_price_minor,
            starts_in: self.starts_in.map(within).transpose()?,
            ends_in: Some(within(self.ends_in)?),
            ..v1::CreateItemRequest::default()
        };
        let token = settings.token("seller")?;
        let reply = client.create_item(client::request(request, Some(&token))).await;
        let reply = reply.map_err(|status| client::explained(settings, &status))?;
        let is_replayed = client::is_replayed(&reply);
        let item = reply.into_inner().item.context("the reply has no item")?;
        record_change(&item, is_replayed.then_some("published"), output);
        Ok(())
    }
}
