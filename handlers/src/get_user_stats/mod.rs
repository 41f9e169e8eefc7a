//! What a user has done, per currency. One's own figures, or anybody's for an operator.
mod sql;

use crate::convert::own_or_any;
use crate::schema::ITEMS_BID_ON;
use gavel_proto::v1;
use gavel_rules::UserId;
use gavel_runtime::changes::Phase;
use gavel_runtime::{
    Io, Result,
    auth::{Access, Caller},
    rpc,
    spec::{Spec, Trigger},
    wire::timestamp,
};

/// `UserService.GetUserStats`.
pub struct GetUserStats;

impl rpc::IoHandler for GetUserStats {
    const SPEC: &'static Spec =
        &Spec::new("get_user_stats", Trigger::Rpc("gavel.v1.UserService/GetUserStats")).may_lag();
    const ACCESS: Access = Access::Authenticated;
    type Request = v1::GetUserStatsRequest;
    type Query = UserId;
    type Reply = v1::GetUserStatsResponse;

    fn parse(request: v1::GetUserStatsRequest, caller: Option<&Caller>) -> Result<UserId> {
        own_or_any(&request.user_id, caller)
    }

    async fn handle(io: &Io, user: &UserId) -> Result<v1::GetUserStatsResponse> {
        let rows = sql::of_user(io.reads(), user).await?;
        let updated_at = rows.iter().map(|row| row.updated_at).max().map(timestamp);
        let is_whole = io.phase(ITEMS_BID_ON) >= Phase::Filled;
        let shown = |row: sql::StatsRow| v1::CurrencyStats {
            currency: row.currency,
            bids_placed: row.bids_placed,
            items_bid_on: is_whole.then_some(row.items_bid_on),
            items_won: row.items_won,
            total_spent_minor: row.total_spent_minor,
        };
        let stats = rows.into_iter().map(shown).collect();
        Ok(v1::GetUserStatsResponse { user_id: user.to_string(), stats, updated_at })
    }
}
