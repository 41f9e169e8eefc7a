use gavel_runtime::{Pool, Result};
use uuid::Uuid;

/// An item, and whether nothing more happens to it.
pub(super) struct Row {
    pub(super) item_id: Uuid,
    pub(super) is_over: bool,
}

/// The items before that one, newest first.
pub(super) async fn page(reads: &Pool, before: Uuid, limit: i64) -> Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT item_id, closed_at IS NOT NULL AS "is_over!" FROM items WHERE item_id < $1 ORDER BY item_id DESC LIMIT $2"#,
        before,
        limit,
    );
    Ok(rows.fetch_all(reads).await?)
}
