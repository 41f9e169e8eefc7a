-- no-transaction
-- Items that were cancelled, newest first.
CREATE INDEX CONCURRENTLY IF NOT EXISTS items_cancelled_idx ON items (item_id) WHERE cancel_reason IS NOT NULL;
