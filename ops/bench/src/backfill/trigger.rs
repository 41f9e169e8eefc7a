//! The processors' time of PostgreSQL for an inserted row, with the trigger that keeps two forms equal and without.
use super::{Stage, prepared};
use crate::{
    bids::service::processor_seconds,
    extent,
    report::{Row, at_most, median},
};
use sqlx::{Connection, Executor, PgConnection};

/// Rows of a statement, as many bids as are decided together on a busy day.
const TOGETHER: i32 = 64;
const STATEMENTS: u32 = 2_000;

pub(super) async fn cost(stage: &Stage<'_>, rounds: usize) -> anyhow::Result<Row> {
    let db = prepared(stage).await?;
    let url = format!("{}/rehearsal", stage.base);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(3) {
        db.execute("ALTER TABLE bids ENABLE TRIGGER bids_keep_amounts_equal").await?;
        with.push(inserting(&url, "max_amount_minor", "$2").await?);
        db.execute("ALTER TABLE bids DISABLE TRIGGER bids_keep_amounts_equal").await?;
        without.push(inserting(&url, "max_amount_minor, amount_minor", "$2, $2::int").await?);
    }
    let what = "the server's processor time for an inserted bid, with the trigger";
    Ok(at_most(what, "µs", median(with), ("without", median(without)), 1.03))
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
