//! Statistics made anew from what they are statistics of: the items and the ledger of bids. For after a restore, when
//! messages on their way were dropped, and after a bug.
//!
//! It is one transaction, at one moment of the database. Events that are still in the outbox then are counted with it,
//! and get their receipt: when they come, they change nothing. Events that have left the outbox must have been applied:
//! so it is for when no worker lives and the consumer's queue is empty, or gone.
use super::{ApplyUserStats, sql};
use anyhow::ensure;
use gavel_runtime::{Conn, message::TxBatchHandler};
use serde_json::json;

/// What it found, and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Users, in each of their currencies.
    pub users: i64,
    /// Of those, whose statistics were not what they should be.
    pub differed: i64,
    /// Events that are counted and will yet come.
    pub events: i64,
}

/// Makes all statistics anew, and proves it before it is committed. `begins` hears of each step.
///
/// # Errors
/// When the database fails; nothing has changed then.
pub async fn rebuild(conn: &mut Conn, who: (&str, &str), mut begins: impl FnMut(&str)) -> anyhow::Result<Rebuilt> {
    sql::begin_rebuild(conn).await?;
    begins("1/4 reading the items and their bids");
    sql::receive_everything(conn).await?;
    let users = sql::fold(conn).await?;
    begins(&format!("2/4 comparing the statistics of {users} users"));
    let differed = sql::differing(conn).await?;
    begins(&format!("3/4 putting {differed} right"));
    sql::put_right(conn).await?;
    begins("4/4 proving that none differ now");
    let left = sql::differing(conn).await?;
    ensure!(left == 0, "{left} users' statistics would still differ: nothing is changed");
    let events = sql::take_for_heard(conn, ApplyUserStats::SPEC.name).await?;
    let rebuilt = Rebuilt { users, differed, events };
    sql::note(conn, who, &json!({ "users": users, "differed": differed, "events": events })).await?;
    sql::end_rebuild(conn).await?;
    Ok(rebuilt)
}
