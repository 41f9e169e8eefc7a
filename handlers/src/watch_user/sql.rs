use crate::item::{ItemRow, item_rows};
use gavel_runtime::{Io, Result};

/// Items that a user has bid on, looked at for what is still open or won.
const LOOKED_AT: i64 = 10_000;

/// The items that a user has bid on and that are open, or were won or lost lately; those that end last first. Of the
/// items that they have bid on, the newest are looked at, however many there are.
///
/// Which ones a user has bid on is what the statistics know: moments behind the ledger.
pub(super) async fn followed(
    io: &Io,
    user: &str,
    (won_within_days, lost_within_days): (i32, i32),
    most: i64,
) -> Result<Vec<ItemRow>> {
    let rows = item_rows!(
        "JOIN (SELECT item_id FROM user_items WHERE user_id = $1 ORDER BY item_id DESC LIMIT $4) u USING (item_id) \
         WHERE (closed_at IS NULL OR closed_at > clock_timestamp() \
                - make_interval(days => CASE WHEN leader_id = $1 THEN $2::int ELSE $5::int END)) \
         ORDER BY ends_at DESC, item_id \
         LIMIT $3",
        user,
        won_within_days,
        most,
        LOOKED_AT,
        lost_within_days,
    );
    Ok(rows.fetch_all(io.reads()).await?)
}
