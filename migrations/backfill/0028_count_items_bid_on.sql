-- Items bid on before the change, and those that an old consumer goes on to write: it is walked again once none lives.
-- table: user_items
-- key: user_id, item_id
-- differs: NOT is_counted
-- awaits: old programs
-- online: ALTER TABLE user_stats VALIDATE CONSTRAINT user_stats_items_bid_on_not_negative
-- online: ANALYZE user_stats
WITH counted AS (
    UPDATE user_items SET is_counted = true
    WHERE (user_id, item_id) BETWEEN (:from) AND (:upto) AND NOT is_counted
    RETURNING user_id, item_id
), added AS (
    INSERT INTO user_stats AS s (user_id, currency, items_bid_on)
    SELECT c.user_id, i.currency, count(*) FROM counted c JOIN items i USING (item_id)
    GROUP BY c.user_id, i.currency
    ORDER BY c.user_id COLLATE "C", i.currency COLLATE "C"
    ON CONFLICT (user_id, currency)
    DO UPDATE SET items_bid_on = s.items_bid_on + excluded.items_bid_on, updated_at = clock_timestamp()
)
SELECT FROM counted
