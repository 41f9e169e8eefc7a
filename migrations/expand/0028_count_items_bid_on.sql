-- The number of different items that a user has bid on, per currency. user_items has a row for each already; its mark
-- is the receipt that it was counted: whoever turns it from false to true adds one, be it the consumer or the backfill.

ALTER TABLE user_items ADD COLUMN is_counted boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN user_items.is_counted IS 'user_stats.items_bid_on has it';
ALTER TABLE user_stats ADD COLUMN items_bid_on bigint NOT NULL DEFAULT 0;
ALTER TABLE user_stats ADD CONSTRAINT user_stats_items_bid_on_not_negative CHECK (items_bid_on >= 0) NOT VALID;
COMMENT ON COLUMN user_stats.items_bid_on IS 'Never too high; too low until its backfill is done';
