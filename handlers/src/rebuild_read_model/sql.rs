use chrono::{DateTime, Utc};
use gavel_runtime::{Class, Error, Pool, Result, Tx};
use uuid::Uuid;

/// Any constant: "GAVM".
const START_LOCK: i64 = 0x4741_564d;
/// It goes through the items so often: what the last finds wrong was put right before.
const PASSES: i64 = 2;

/// An item, and whether nothing more happens to it.
pub(super) struct Item {
    pub(super) item_id: Uuid,
    pub(super) is_over: bool,
}

/// The items before that one, newest first.
pub(super) async fn page(reads: &Pool, before: Uuid, limit: i64) -> Result<Vec<Item>> {
    let rows = sqlx::query_as!(
        Item,
        r#"SELECT item_id, closed_at IS NOT NULL AS "is_over!" FROM items WHERE item_id < $1 ORDER BY item_id DESC LIMIT $2"#,
        before,
        limit,
    );
    Ok(rows.fetch_all(reads).await?)
}

/// What was found in a page, and put right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Items.
    pub(super) items: i64,
    /// Of those, that the read model did not have.
    pub(super) missing: i64,
    /// That it had in an earlier version: their events may have been on their way.
    pub(super) earlier: i64,
    /// That were not what the items say.
    pub(super) wrong: i64,
}

/// How far a rebuild is: which time it goes through the items, and before which it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) pass: i64,
    pub(super) before: Uuid,
}

impl Cursor {
    /// Where to go on after a page whose last item is that one; none where all is done.
    pub(super) fn after(self, last: Option<Uuid>) -> Option<Self> {
        match last {
            Some(before) => Some(Self { before, ..self }),
            None if self.pass < PASSES => Some(Self { pass: self.pass + 1, before: Uuid::max() }),
            None => None,
        }
    }
}

/// Where a rebuild is to go on; none where it is done, or was given up for another.
pub(super) async fn cursor(reads: &Pool, rebuild_id: Uuid) -> Result<Option<Cursor>> {
    let running = sqlx::query_as!(
        Cursor,
        "SELECT pass, before FROM rebuilds WHERE rebuild_id = $1 AND state = 'running'",
        rebuild_id
    );
    Ok(running.fetch_optional(reads).await?)
}

/// Notes a page. Fails where another attempt has come by meanwhile.
pub(super) async fn advance(
    tx: &mut Tx,
    rebuild_id: Uuid,
    (from, to): (Cursor, Option<Cursor>),
    page: &Counted,
) -> Result<()> {
    let next = to.unwrap_or(from);
    // The second time it is a proof.
    let (first, again) = if from.pass == 1 { (*page, Counted::default()) } else { (Counted::default(), *page) };
    let noted = sqlx::query!(
        "UPDATE rebuilds
         SET pass = $4, before = $5, items = items + $6, missing = missing + $7, earlier = earlier + $8,
             wrong = wrong + $9, checked = checked + $10, wrong_again = wrong_again + $11,
             progressed_at = clock_timestamp(), why = '',
             state = CASE WHEN $12 THEN 'done' ELSE state END,
             finished_at = CASE WHEN $12 THEN clock_timestamp() END
         WHERE rebuild_id = $1 AND pass = $2 AND before = $3 AND state = 'running'",
        rebuild_id,
        from.pass,
        from.before,
        next.pass,
        next.before,
        first.items,
        first.missing,
        first.earlier,
        first.wrong,
        again.items,
        again.wrong,
        to.is_none(),
    );
    if noted.execute(tx.conn()).await?.rows_affected() == 0 {
        return Err(Error::new(Class::Conflict, "another attempt has gone on with this rebuild"));
    }
    Ok(())
}

/// Notes what it waits for.
pub(super) async fn note_why(tx: &mut Tx, rebuild_id: Uuid, why: &str) -> Result<()> {
    let noted =
        sqlx::query!("UPDATE rebuilds SET why = $2 WHERE rebuild_id = $1 AND state = 'running'", rebuild_id, why);
    noted.execute(tx.conn()).await?;
    Ok(())
}

/// A rebuild as its row says.
pub(super) struct Row {
    pub(super) rebuild_id: Uuid,
    pub(super) job_id: Uuid,
    pub(super) state: String,
    pub(super) started_at: DateTime<Utc>,
    pub(super) started_by: String,
    pub(super) reason: String,
    pub(super) items: i64,
    pub(super) missing: i64,
    pub(super) earlier: i64,
    pub(super) wrong: i64,
    pub(super) checked: i64,
    pub(super) wrong_again: i64,
    pub(super) progressed_at: DateTime<Utc>,
    pub(super) finished_at: Option<DateTime<Utc>>,
    pub(super) why: String,
    pub(super) items_estimated: i64,
}

/// One of that id.
pub(super) async fn rebuild(reads: &Pool, rebuild_id: Uuid) -> Result<Option<Row>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT rebuild_id, job_id, state, started_at, started_by, reason, items, missing, earlier, wrong, checked,
                  wrong_again, progressed_at, finished_at, why,
                  (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'items'::regclass)
                    AS "items_estimated!"
           FROM rebuilds WHERE rebuild_id = $1"#,
        rebuild_id
    );
    Ok(row.fetch_optional(reads).await?)
}

/// Lets nobody else start one until this transaction has ended; gives the one that is under way. One whose job is
/// neither queued nor running is so no more.
pub(super) async fn under_way(tx: &mut Tx) -> Result<Option<Uuid>> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(START_LOCK).execute(tx.conn()).await?;
    sqlx::query!(
        "UPDATE rebuilds r SET state = 'abandoned', finished_at = clock_timestamp()
         WHERE r.state = 'running' AND NOT EXISTS (SELECT FROM mq_msgs m WHERE m.id = r.job_id)"
    )
    .execute(tx.conn())
    .await?;
    let running = sqlx::query_scalar!("SELECT rebuild_id FROM rebuilds WHERE state = 'running'");
    Ok(running.fetch_optional(tx.conn()).await?)
}

/// Writes down one that begins.
pub(super) async fn begin(tx: &mut Tx, rebuild_id: Uuid, job_id: Uuid, (by, reason): (&str, &str)) -> Result<()> {
    sqlx::query!(
        "INSERT INTO rebuilds (rebuild_id, job_id, started_by, reason) VALUES ($1, $2, $3, $4)",
        rebuild_id,
        job_id,
        by,
        reason
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_through_the_items_twice_and_is_done() {
        let (first, item) = (Cursor { pass: 1, before: Uuid::max() }, Uuid::from_u128(7));
        assert_eq!(first.after(Some(item)), Some(Cursor { pass: 1, before: item }));
        let second = first.after(None).expect("once more");
        assert_eq!(second, Cursor { pass: 2, before: Uuid::max() });
        assert_eq!(second.after(None), None);
    }
}
