//! How far the backfills are, every second.
use sqlx::PgPool;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// The rows that were passed, by the time.
pub(super) struct Filling {
    seen: Arc<Mutex<Vec<(Duration, i64)>>>,
    _task: JoinSet<()>,
}

impl Filling {
    pub(super) fn begin(db: PgPool, began: Instant) -> Self {
        let (seen, mut task) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        let into = seen.clone();
        task.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                // Before the expand there is nothing to look at.
                let rows = sqlx::query_scalar("SELECT coalesce(sum(rows_passed), 0)::bigint FROM backfills");
                if let Ok(rows) = rows.fetch_one(&db).await {
                    into.lock().unwrap_or_else(PoisonError::into_inner).push((began.elapsed(), rows));
                }
            }
        });
        Self { seen, _task: task }
    }

    pub(super) fn end(self) -> Vec<(Duration, i64)> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
