//! The processors' time of PostgreSQL for an inserted row, with the trigger that keeps two forms equal and without.
use super::{Stage, prepared};
use crate::{
    bids::{
        load::{self, Lots},
        service::processor_seconds,
    },
    extent,
    rehearse::{ITEMS, write_items},
    report::{Row, at_most, median},
};
use sqlx::{Connection, Executor, PgConnection, PgPool};
use std::{collections::BTreeMap, time::Duration};

/// Rows of a statement, as many bids as are decided together on a busy day.
const TOGETHER: i32 = 64;
const STATEMENTS: u32 = 2_000;
/// Bids are made by so many at once, for so long.
const BIDDERS: usize = 64;
const BIDDING_FOR: Duration = Duration::from_secs(15);

/// Beside a bare INSERT, and beside all that the server does for a bid that a service takes.
pub(super) async fn cost(stage: &Stage<'_>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let db = prepared(stage).await?;
    let url = format!("{}/rehearsal", stage.base);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(5) {
        db.execute("ALTER TABLE bids ENABLE TRIGGER bids_keep_amounts_equal").await?;
        with.push(inserting(&url, "max_amount_minor", "$2").await?);
        db.execute("ALTER TABLE bids DISABLE TRIGGER bids_keep_amounts_equal").await?;
        without.push(inserting(&url, "max_amount_minor, amount_minor", "$2, $2::int").await?);
    }
    db.execute("ALTER TABLE bids ENABLE TRIGGER bids_keep_amounts_equal").await?;
    let (with, without) = (median(with), median(without));
    let bid = bidding(stage, &db).await?;
    let what = "the server's processor time for a bare INSERT of a bid, with the trigger";
    let whole = "the server's processor time for a bid that a service takes, with the trigger";
    Ok(vec![
        at_most(what, "µs", with, ("without", without), f64::INFINITY),
        at_most(whole, "µs", bid, ("without", bid - (with - without)), 1.03),
    ])
}

/// Microseconds of the server's processors for a bid: all that its transaction does.
async fn bidding(stage: &Stage<'_>, db: &PgPool) -> anyhow::Result<f64> {
    write_items(db).await?;
    let service = stage.service(&stage.new).await?;
    let clients = load::connect(&stage.new, &service.address, BIDDERS).await?;
    let before = backends(db).await?;
    let time = extent::time(BIDDING_FOR);
    let tally = load::closed(clients, &Lots::new(ITEMS), Duration::ZERO, time).await?;
    let spent: f64 = backends(db).await?.iter().map(|(pid, s)| s - before.get(pid).copied().unwrap_or_default()).sum();
    service.drain().await?;
    Ok(spent * 1e6 / f64::from(tally.accepted.max(1)))
}

/// The processors' time in seconds of each session on the database but this one.
async fn backends(db: &PgPool) -> anyhow::Result<BTreeMap<i32, f64>> {
    let read = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let pids: Vec<i32> = sqlx::query_scalar(read).fetch_all(db).await?;
    pids.into_iter().map(|pid| Ok((pid, processor_seconds(u32::try_from(pid)?)?))).collect()
}

/// Microseconds for a row.
async fn inserting(url: &str, columns: &str, values: &str) -> anyhow::Result<f64> {
    let mut conn = PgConnection::connect(url).await?;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await?;
    let insert = format!(
        "INSERT INTO bids (bid_id, item_id, sequence, bidder_id, {columns}, decided_at)
         SELECT gen_random_uuid(), md5('item0')::uuid, $1 + n, 'bidder', {values}, now()
         FROM generate_series(1, {TOGETHER}) n"
    );
    let first: i64 = sqlx::query_scalar("SELECT max(sequence) FROM bids").fetch_one(&mut conn).await?;
    let before = processor_seconds(u32::try_from(pid)?)?;
    let statements = extent::count(STATEMENTS);
    for n in 0..statements {
        let from = first + i64::from(n) * i64::from(TOGETHER);
        sqlx::query(&insert).bind(from).bind(1_000_i64).execute(&mut conn).await?;
    }
    let took = processor_seconds(u32::try_from(pid)?)? - before;
    conn.close().await?;
    Ok(took * 1e6 / f64::from(statements) / f64::from(TOGETHER))
}
