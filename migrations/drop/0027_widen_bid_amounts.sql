-- bakes: 24h
DROP TRIGGER bids_keep_amounts_equal ON bids;
DROP FUNCTION keep_bid_amounts_equal();
DROP SEQUENCE bids_amount_minor_writes;
ALTER TABLE bids DROP CONSTRAINT bids_amounts_equal;
ALTER TABLE bids DROP COLUMN amount_minor_old;
ALTER TABLE bids RESET (autovacuum_vacuum_scale_factor);
