//! Rows of before the changes, and what must be so of them in the end.
use crate::bids::load::{START_MINOR, item_id};
use sqlx::PgPool;

/// Items that are bid on today.
pub(crate) const ITEMS: u32 = 1_000;
/// Rows that are written at a time.
const BATCH: i64 = 250_000;

/// Writes old bids, of some thousand users, on items of a hundred bids each, and what consumers have made of them.
pub(crate) async fn write(db: &PgPool, bids: i64) -> anyhow::Result<()> {
    let items = "INSERT INTO items (item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor,
                                    leader_id, bid_count, version, starts_at, ends_at)
                 SELECT md5('item' || i)::uuid, 'sam', 'An old lamp', CASE WHEN i % 2 = 0 THEN 'EUR' ELSE 'USD' END, 100,
                        1, 20000, 'user-1', 100, 101, now() - interval '1 day', now() + interval '1 day'
                 FROM generate_series(0, $1 / 100) i";
    sqlx::query(items).bind(bids).execute(db).await?;
    // Ids in the order of their time (UUID version 7), as the programs give them.
    let rows = "INSERT INTO bids (bid_id, item_id, sequence, bidder_id, amount_minor, decided_at)
                SELECT (lpad(to_hex(1767225600000 + n), 12, '0') || '7' || left(md5('a' || n), 3) || '8'
                          || left(md5('b' || n), 15))::uuid,
                       md5('item' || (n / 100))::uuid, 2 + n % 100, 'user-' || (n % 3001), 100 + n % 100, now()
                FROM generate_series($1, $2) n";
    for from in (0..bids).step_by(usize::try_from(BATCH)?) {
        sqlx::query(rows).bind(from).bind((from + BATCH).min(bids) - 1).execute(db).await?;
    }
    for made in [
        "INSERT INTO user_items (user_id, item_id) SELECT DISTINCT bidder_id, item_id FROM bids",
        "INSERT INTO user_stats (user_id, currency, bids_placed)
         SELECT bidder_id, currency, count(*) FROM bids JOIN items USING (item_id) GROUP BY 1, 2",
        "VACUUM ANALYZE",
    ] {
        sqlx::query(made).execute(db).await?;
    }
    Ok(())
}

/// Writes those items.
pub(crate) async fn write_items(db: &PgPool) -> anyhow::Result<()> {
    let insert =
        "INSERT INTO items (item_id, seller_id, title, currency, start_price_minor, ladder_version, starts_at, ends_at)
                  SELECT $1::uuid, 'sam', 'A lot', 'EUR', $2, 1, now() - interval '1 hour', now() + interval '1 day'";
    for n in 1..=ITEMS {
        sqlx::query(insert).bind(item_id(n as usize)).bind(START_MINOR).execute(db).await?;
    }
    Ok(())
}

/// Count, sum and hash of the amounts in one of sixteen ranges of keys.
pub(super) type Range = (i32, i64, i64, i64);

/// Of each range, in one snapshot, by that column.
pub(super) async fn ranges(db: &PgPool, column: &str) -> anyhow::Result<Vec<Range>> {
    let read = format!(
        "SELECT get_byte(uuid_send(bid_id), 15) / 16, count(*), sum({column})::bigint,
                sum(hashtext(bid_id::text || {column}::bigint)::bigint)::bigint
         FROM bids WHERE bidder_id LIKE 'user-%' GROUP BY 1 ORDER BY 1"
    );
    Ok(sqlx::query_as(&read).fetch_all(db).await?)
}

/// Users whose count of items is not what their bids say.
pub(super) async fn wrong_counts(db: &PgPool) -> anyhow::Result<i64> {
    let read = "SELECT count(*) FROM (
                  SELECT bidder_id AS user_id, currency, count(DISTINCT item_id) AS n
                  FROM bids JOIN items USING (item_id) GROUP BY 1, 2) b
                FULL JOIN user_stats s USING (user_id, currency) WHERE s.items_bid_on IS DISTINCT FROM b.n";
    Ok(sqlx::query_scalar(read).fetch_one(db).await?)
}
