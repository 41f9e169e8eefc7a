-- no-transaction
-- Items that are not counted yet: nothing, once the backfill is done.
CREATE INDEX CONCURRENTLY IF NOT EXISTS user_items_uncounted_idx ON user_items (user_id, item_id) WHERE NOT is_counted;
