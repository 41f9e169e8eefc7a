//! Taking one out of the auction.
use super::shown::record_change;
use crate::bidctl::{client, output::Output, settings::Settings};
use anyhow::Context;
use clap::Args;
use gavel_proto::v1;
use gavel_runtime::ids;

#[derive(Args)]
pub(crate) struct Cancel {
    /// The item's id
    item_id: String,
    /// Why, for everybody to read. An operator gives one, with --as-operator
    #[arg(long, default_value = "")]
    reason: String,
    /// As an operator: also with bids on it. With --user, the development token is minted with role ops for this
    #[arg(long, requires = "reason")]
    as_operator: bool,
    /// The idempotency key, a UUID
    #[arg(long)]
    key: Option<String>,
}

impl Cancel {
    pub(super) async fn run(
        &self,
        client: &v1::ItemServiceClient,
        settings: &Settings,
        output: Output,
    ) -> anyhow::Result<()> {
        let request = v1::CancelItemRequest {
            idempotency_key: self.key.clone().unwrap_or_else(|| ids::random().to_string()),
            item_id: self.item_id.clone(),
            reason: self.reason.clone(),
        };
        let token = settings.token(if self.as_operator { "ops" } else { "seller" })?;
        let reply = client.cancel_item(client::request(request, Some(&token))).await;
        let reply = reply.map_err(|status| client::explained(settings, &status))?;
        let is_replayed = client::is_replayed(&reply);
        let item = reply.into_inner().item.context("the reply has no item")?;
        record_change(&item, is_replayed.then_some("cancelled"), output);
        Ok(())
    }
}
