-- no-transaction
-- Items that are recorded as closed, newest first.
CREATE INDEX CONCURRENTLY IF NOT EXISTS items_closed_idx ON items (item_id) WHERE closed_at IS NOT NULL;
