use super::Action;
use gavel_runtime::{Result, Tx};
use serde_json::Value;

/// Writes down what was done to what.
pub async fn record(tx: &mut Tx, by: &Action, action: &str, target: &str, details: &Value) -> Result<()> {
    sqlx::query!(
        "INSERT INTO operator_actions (operator_id, action, target, reason, details) VALUES ($1, $2, $3, $4, $5)",
        by.by,
        action,
        target,
        by.reason,
        details,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
