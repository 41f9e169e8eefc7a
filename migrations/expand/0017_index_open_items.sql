-- no-transaction
-- Items that are not recorded as closed, newest first: a page of them reads that page, however many are closed.
CREATE INDEX CONCURRENTLY IF NOT EXISTS items_open_idx ON items (item_id) WHERE closed_at IS NULL;
