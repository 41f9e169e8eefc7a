//! What the exercises of `docs/milestones` ask for. Nobody has done them here, so all are ignored; `cargo xtask milestone`
//! runs them, and what a panic says is what it tells to be missing.
mod concurrency;
mod dual_writes;
mod foundation;
mod idempotency;
mod production;
mod schema_evolution;

use gavel_tests::System;

/// Items that a seller may have open at once, once the exercise of the second milestone is done.
const MOST_OPEN: i64 = 100;

/// So many items of sam's that are open.
async fn sam_has_open(system: &System, count: i64) {
    let items = sqlx::query(
        "INSERT INTO items (item_id, seller_id, title, currency, start_price_minor, ladder_version, starts_at, ends_at)
         SELECT gen_random_uuid(), 'sam', 'A lamp of before', 'EUR', 1000, 1, now() - interval '1 minute',
                now() + interval '1 hour'
         FROM generate_series(1, $1)",
    );
    items.bind(count).execute(&system.db).await.expect("published");
}

/// Figures of a seller: published, cancelled.
async fn figures(system: &System, seller: &str) -> (i64, i64) {
    let found = sqlx::query_as("SELECT items_published, items_cancelled FROM seller_stats WHERE seller_id = $1");
    found.bind(seller).fetch_optional(&system.db).await.expect("there is a table seller_stats").unwrap_or_default()
}
