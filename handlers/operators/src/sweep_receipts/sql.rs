use gavel_runtime::{Result, Tx};
use std::time::Duration;

pub(super) async fn forget_replies(tx: &mut Tx, older_than: Duration, limit: i64) -> Result<u64> {
    let forgotten = sqlx::query!(
        "DELETE FROM idempotency_keys WHERE (principal, operation, idempotency_key) IN (
           SELECT principal, operation, idempotency_key FROM idempotency_keys
           WHERE created_at < now() - make_interval(secs => $1) ORDER BY created_at LIMIT $2)",
        older_than.as_secs_f64(),
        limit,
    )
    .execute(tx.conn())
    .await?;
    Ok(forgotten.rows_affected())
}

pub(super) async fn forget_messages(tx: &mut Tx, older_than: Duration, limit: i64) -> Result<u64> {
    let forgotten = sqlx::query!(
        "DELETE FROM inbox WHERE (consumer, message_id) IN (
           SELECT consumer, message_id FROM inbox
           WHERE received_at < now() - make_interval(secs => $1) ORDER BY received_at LIMIT $2)",
        older_than.as_secs_f64(),
        limit,
    )
    .execute(tx.conn())
    .await?;
    Ok(forgotten.rows_affected())
}
