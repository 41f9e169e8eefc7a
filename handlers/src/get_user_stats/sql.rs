use chrono::{DateTime, Utc};
use gavel_rules::UserId;
use gavel_runtime::{Pool, Result};

pub(super) struct StatsRow {
    pub(super) currency: String,
    pub(super) bids_placed: i64,
    pub(super) items_bid_on: i64,
    pub(super) items_won: i64,
    pub(super) total_spent_minor: i64,
    pub(super) updated_at: DateTime<Utc>,
}

pub(super) async fn of_user(reads: &Pool, user: &UserId) -> Result<Vec<StatsRow>> {
    let rows = sqlx::query_as!(
        StatsRow,
        "SELECT currency, bids_placed, items_bid_on, items_won, total_spent_minor, updated_at FROM user_stats
         WHERE user_id = $1 ORDER BY currency",
        user.as_str(),
    );
    Ok(rows.fetch_all(reads).await?)
}
