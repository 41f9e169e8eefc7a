use gavel_runtime::{Pool, Result, Tx, reconcile::Overdue};
use std::time::Duration;
use uuid::Uuid;

/// How many are counted.
const COUNTED: i64 = 10_000;

pub(super) async fn overdue(reads: &Pool, grace: Duration) -> Result<Overdue> {
    let found = sqlx::query!(
        r#"SELECT count(*) AS "count!", extract(epoch FROM clock_timestamp() - min(ends_at))::float8 AS oldest_s
           FROM (SELECT ends_at FROM items
                 WHERE closed_at IS NULL AND ends_at < now() - make_interval(secs => $1)
                 ORDER BY ends_at LIMIT $2) i"#,
        grace.as_secs_f64(),
        COUNTED,
    );
    let found = found.fetch_one(reads).await?;
    let oldest = Duration::try_from_secs_f64(found.oldest_s.unwrap_or_default()).unwrap_or_default();
    Ok(Overdue { count: found.count, oldest })
}

/// Any of those that have waited longest: those that can't be closed, however many, are not to keep the others for
/// ever.
pub(super) async fn overdue_items(tx: &mut Tx, grace: Duration, limit: i64) -> Result<Vec<Uuid>> {
    let items = sqlx::query_scalar!(
        "SELECT item_id FROM (SELECT item_id FROM items
                               WHERE closed_at IS NULL AND ends_at < now() - make_interval(secs => $1)
                               ORDER BY ends_at LIMIT $3) i
         ORDER BY random() LIMIT $2",
        grace.as_secs_f64(),
        limit,
        COUNTED,
    );
    Ok(items.fetch_all(tx.conn()).await?)
}
