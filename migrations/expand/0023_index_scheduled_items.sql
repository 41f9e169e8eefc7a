-- no-transaction
-- Items that are not recorded as closed, by their starts: those whose bidding has not begun are listed in this order.
CREATE INDEX CONCURRENTLY IF NOT EXISTS items_to_start_idx ON items (starts_at, item_id) WHERE closed_at IS NULL;
