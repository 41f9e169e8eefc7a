-- no-transaction
-- Items that are not recorded as closed, by their ends: those past theirs are found by whoever makes sure that they are closed.
CREATE INDEX CONCURRENTLY IF NOT EXISTS items_to_close_idx ON items (ends_at, item_id) WHERE closed_at IS NULL;
