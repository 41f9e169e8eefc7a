use gavel_runtime::{Conn, Result, Tx};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// What is added to a user's statistics in one currency.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) bids_placed: i64,
    pub(super) items_bid_on: i64,
    pub(super) items_won: i64,
    pub(super) total_spent_minor: i64,
}

/// Sums by user and currency, in the order in which their rows are locked.
pub(super) type Sums<'a> = BTreeMap<(&'a str, &'a str), Sum>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Sale<'a> {
    pub(super) item_id: Uuid,
    pub(super) user_id: &'a str,
    pub(super) currency: &'a str,
    pub(super) amount_minor: i64,
}

/// Enters sales into the ledger and gives those that were not in it yet: only they are to be added.
pub(super) async fn enter_sales<'a>(tx: &mut Tx, mut sales: Vec<Sale<'a>>) -> Result<Vec<Sale<'a>>> {
    if sales.is_empty() {
        return Ok(sales);
    }
    sales.sort_unstable_by_key(|sale| sale.item_id);
    sales.dedup_by_key(|sale| sale.item_id);
    let texts = |of: fn(&Sale<'a>) -> &'a str| sales.iter().map(|sale| of(sale).to_owned()).collect::<Vec<_>>();
    let entered = sqlx::query_scalar!(
        "INSERT INTO spend_ledger (item_id, user_id, currency, amount_minor)
         SELECT item_id, user_id, currency, amount_minor
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) AS s (item_id, user_id, currency, amount_minor)
         ON CONFLICT (item_id) DO NOTHING
         RETURNING item_id",
        &sales.iter().map(|sale| sale.item_id).collect::<Vec<_>>(),
        &texts(|sale| sale.user_id),
        &texts(|sale| sale.currency),
        &sales.iter().map(|sale| sale.amount_minor).collect::<Vec<_>>(),
    );
    let entered: HashSet<_> = entered.fetch_all(tx.conn()).await?.into_iter().collect();
    sales.retain(|sale| entered.contains(&sale.item_id));
    Ok(sales)
}

/// Adds all sums in one statement, whose rows come in one order whoever adds them.
pub(super) async fn add(tx: &mut Tx, sums: &Sums<'_>) -> Result<()> {
    if sums.is_empty() {
        return Ok(());
    }
    let figures = |of: fn(&Sum) -> i64| sums.values().map(of).collect::<Vec<_>>();
    sqlx::query!(
        "INSERT INTO user_stats AS s (user_id, currency, bids_placed, items_won, total_spent_minor, items_bid_on)
         SELECT user_id, currency, bids_placed, items_won, total_spent_minor, items_bid_on
         FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
           AS n (user_id, currency, bids_placed, items_won, total_spent_minor, items_bid_on)
         ON CONFLICT (user_id, currency)
         DO UPDATE SET bids_placed = s.bids_placed + excluded.bids_placed,
                       items_won = s.items_won + excluded.items_won,
                       total_spent_minor = s.total_spent_minor + excluded.total_spent_minor,
                       items_bid_on = s.items_bid_on + excluded.items_bid_on,
                       updated_at = clock_timestamp()",
        &sums.keys().map(|(user_id, _)| (*user_id).to_owned()).collect::<Vec<_>>(),
        &sums.keys().map(|(_, currency)| (*currency).to_owned()).collect::<Vec<_>>(),
        &figures(|sum| sum.bids_placed),
        &figures(|sum| sum.items_won),
        &figures(|sum| sum.total_spent_minor),
        &figures(|sum| sum.items_bid_on),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Users and the items that they have bid on, in the order in which their rows are locked, with the items' currencies.
pub(super) type Follows<'a> = BTreeMap<(&'a str, Uuid), &'a str>;

/// Users who were counted for an item for the first time, by item.
#[derive(Default)]
pub(super) struct Counted(HashMap<Uuid, HashSet<String>>);

impl Counted {
    pub(super) fn has(&self, user_id: &str, item_id: Uuid) -> bool {
        self.0.get(&item_id).is_some_and(|users| users.contains(user_id))
    }
}

/// Remembers who has bid on what; gives those who had not been counted for that item. Their mark is the receipt: a
/// backfill that counts those of before turns it as well.
pub(super) async fn follow(tx: &mut Tx, follows: &Follows<'_>) -> Result<Counted> {
    if follows.is_empty() {
        return Ok(Counted::default());
    }
    let (users, items): (Vec<_>, Vec<_>) = follows.keys().map(|(user, item)| ((*user).to_owned(), *item)).unzip();
    let counted = sqlx::query!(
        "INSERT INTO user_items AS u (user_id, item_id, is_counted)
         SELECT user_id, item_id, true FROM unnest($1::text[], $2::uuid[]) AS f (user_id, item_id)
         WHERE NOT EXISTS (SELECT FROM user_items c
                           WHERE c.user_id = f.user_id AND c.item_id = f.item_id AND c.is_counted)
         ON CONFLICT (user_id, item_id) DO UPDATE SET is_counted = true WHERE NOT u.is_counted
         RETURNING user_id, item_id",
        &users,
        &items,
    );
    let mut by_item = Counted::default();
    for row in counted.fetch_all(tx.conn()).await? {
        by_item.0.entry(row.item_id).or_default().insert(row.user_id);
    }
    Ok(by_item)
}

/// From here to its end, nobody else counts, and everything is seen as it is at one moment.
pub(super) async fn begin_rebuild(conn: &mut Conn) -> Result<(), sqlx::Error> {
    for statement in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "LOCK TABLE user_stats, spend_ledger, user_items, inbox IN SHARE ROW EXCLUSIVE MODE",
    ] {
        sqlx::query(statement).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Lets it stay.
pub(super) async fn end_rebuild(conn: &mut Conn) -> Result<(), sqlx::Error> {
    sqlx::query("COMMIT").execute(conn).await.map(drop)
}

/// Receipts of everything that the items and the ledger of bids say, and of nothing else: that a user is counted for an
/// item, and each sale.
pub(super) async fn receive_everything(conn: &mut Conn) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO user_items AS u (user_id, item_id, is_counted) SELECT DISTINCT bidder_id, item_id, true FROM bids
         ON CONFLICT (user_id, item_id) DO UPDATE SET is_counted = true WHERE NOT u.is_counted"
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "DELETE FROM spend_ledger s WHERE NOT EXISTS (
           SELECT FROM items i
           WHERE i.item_id = s.item_id AND i.closed_at IS NOT NULL AND i.cancel_reason IS NULL
             AND i.leader_id = s.user_id AND i.currency = s.currency AND i.price_minor = s.amount_minor)"
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO spend_ledger (item_id, user_id, currency, amount_minor)
         SELECT item_id, leader_id, currency, price_minor FROM items
         WHERE closed_at IS NOT NULL AND cancel_reason IS NULL AND leader_id IS NOT NULL
         ON CONFLICT (item_id) DO NOTHING"
    )
    .execute(conn)
    .await
    .map(drop)
}

/// What the statistics should be, as a view of this session alone.
pub(super) async fn fold(conn: &mut Conn) -> Result<i64, sqlx::Error> {
    sqlx::query(
        "CREATE TEMPORARY TABLE folded ON COMMIT DROP AS
         SELECT user_id, currency, sum(bids_placed)::bigint AS bids_placed, sum(items_bid_on)::bigint AS items_bid_on,
                sum(items_won)::bigint AS items_won, sum(total_spent_minor)::bigint AS total_spent_minor
         FROM (SELECT bidder_id AS user_id, currency, count(*) AS bids_placed, count(DISTINCT item_id) AS items_bid_on,
                      0 AS items_won, 0 AS total_spent_minor
               FROM bids JOIN items USING (item_id) GROUP BY bidder_id, currency
               UNION ALL
               SELECT user_id, currency, 0, 0, count(*), sum(amount_minor) FROM spend_ledger GROUP BY user_id, currency) f
         GROUP BY user_id, currency",
    )
    .execute(conn)
    .await
    .map(|made| i64::try_from(made.rows_affected()).unwrap_or(i64::MAX))
}

/// How many users' statistics differ from what they should be.
pub(super) async fn differing(conn: &mut Conn) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM folded f FULL JOIN user_stats s USING (user_id, currency)
         WHERE (coalesce(f.bids_placed, 0), coalesce(f.items_bid_on, 0), coalesce(f.items_won, 0),
                coalesce(f.total_spent_minor, 0))
           IS DISTINCT FROM (s.bids_placed, s.items_bid_on, s.items_won, s.total_spent_minor)",
    )
    .fetch_one(conn)
    .await
}

/// Makes them what they should be.
pub(super) async fn put_right(conn: &mut Conn) -> Result<(), sqlx::Error> {
    for statement in [
        "INSERT INTO user_stats AS s (user_id, currency, bids_placed, items_bid_on, items_won, total_spent_minor)
         SELECT user_id, currency, bids_placed, items_bid_on, items_won, total_spent_minor FROM folded
         ON CONFLICT (user_id, currency) DO UPDATE
         SET bids_placed = excluded.bids_placed, items_bid_on = excluded.items_bid_on, items_won = excluded.items_won,
             total_spent_minor = excluded.total_spent_minor, updated_at = clock_timestamp()
         WHERE (s.bids_placed, s.items_bid_on, s.items_won, s.total_spent_minor)
           IS DISTINCT FROM (excluded.bids_placed, excluded.items_bid_on, excluded.items_won, excluded.total_spent_minor)",
        "UPDATE user_stats s
         SET bids_placed = 0, items_bid_on = 0, items_won = 0, total_spent_minor = 0, updated_at = clock_timestamp()
         WHERE NOT EXISTS (SELECT FROM folded f WHERE f.user_id = s.user_id AND f.currency = s.currency)
           AND (s.bids_placed, s.items_bid_on, s.items_won, s.total_spent_minor) IS DISTINCT FROM (0, 0, 0, 0)",
    ] {
        sqlx::query(statement).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Events that were not heard yet are counted now: when they come, they are known.
pub(super) async fn take_for_heard(conn: &mut Conn, consumer: &str) -> Result<i64, sqlx::Error> {
    let heard = sqlx::query!(
        "INSERT INTO inbox (consumer, message_id)
         SELECT $1, event_id FROM outbox
         UNION
         SELECT $1, message_id::uuid FROM parked_messages WHERE handler = $1 AND message_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
         ON CONFLICT ON CONSTRAINT inbox_pkey DO NOTHING",
        consumer,
    );
    heard.execute(conn).await.map(|heard| i64::try_from(heard.rows_affected()).unwrap_or(i64::MAX))
}

/// Writes down who did it, and why.
pub(super) async fn note(
    conn: &mut Conn,
    (by, reason): (&str, &str),
    details: &serde_json::Value,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO operator_actions (operator_id, action, target, reason, details)
         VALUES ($1, 'rebuild_stats', 'user_stats', $2, $3)",
        by,
        reason,
        details,
    )
    .execute(conn)
    .await
    .map(drop)
}
