//! User statistics.
use crate::bidctl::{
    client,
    output::{Output, money, optional_time},
    settings::Settings,
};
use clap::Args;
use gavel_proto::v1;
use serde_json::json;

#[derive(Args)]
pub(crate) struct Stats {
    /// Whose, the caller's own where left out. With --user, the development token is minted with role ops for this
    of: Option<String>,
}

impl Stats {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let client = v1::UserServiceClient::new(client::config(settings)?);
        let role = if self.of.is_some() { "ops" } else { "bidder" };
        let token = settings.token(role)?;
        let request = v1::GetUserStatsRequest { user_id: self.of.clone().unwrap_or_default() };
        let reply = client.get_user_stats(client::request(request, Some(&token))).await;
        let reply = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
        let as_json = |stats: &v1::CurrencyStats| {
            json!({
                "currency": stats.currency, "bids_placed": stats.bids_placed, "items_won": stats.items_won,
                "items_bid_on": stats.items_bid_on,
                "total_spent_minor": stats.total_spent_minor,
            })
        };
        let as_row = |stats: &v1::CurrencyStats| {
            let spent = money(stats.total_spent_minor, &stats.currency);
            vec![reply.user_id.clone(), stats.bids_placed.to_string(), stats.items_won.to_string(), spent]
        };
        let json = json!({
            "user_id": reply.user_id,
            "stats": reply.stats.iter().map(as_json).collect::<Vec<_>>(),
            "updated_at": optional_time(reply.updated_at.as_ref()),
        });
        let rows: Vec<_> = reply.stats.iter().map(as_row).collect();
        output.table(&json, &["user", "bids placed", "items won", "total spent"], &rows);
        Ok(())
    }
}
