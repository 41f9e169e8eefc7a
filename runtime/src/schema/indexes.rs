//! Indexes whose building was cut short: they are there and serve nobody, and `IF NOT EXISTS` believes them.
use crate::Conn;
use sqlx::Executor;

/// Returns whether a statement builds an index beside the writers.
pub(crate) fn is_built_by(statement: &str) -> bool {
    let words = statement.to_uppercase();
    words.contains("INDEX") && words.contains("CONCURRENTLY")
}

/// Returns whether an index that a statement names is there and whole.
pub(crate) async fn is_valid(conn: &mut Conn, statement: &str) -> Result<bool, sqlx::Error> {
    let read = "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                WHERE i.indisvalid AND c.relnamespace = current_schema()::regnamespace
                  AND position(c.relname::text IN $1) > 0)";
    sqlx::query_scalar(read).bind(statement).fetch_one(conn).await
}

/// Drops those that the statements name and nobody builds right now; true where there was one.
pub(crate) async fn drop_half_built(conn: &mut Conn, statements: &str) -> Result<bool, sqlx::Error> {
    let half_built: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE NOT i.indisvalid AND c.relnamespace = current_schema()::regnamespace
           AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)",
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut is_found = false;
    for index in half_built.iter().filter(|index| statements.contains(index.as_str())) {
        tracing::warn!(index, "the building of an index was cut short; what there is of it is dropped");
        conn.execute(format!("DROP INDEX CONCURRENTLY IF EXISTS \"{index}\"").as_str()).await?;
        is_found = true;
    }
    Ok(is_found)
}
