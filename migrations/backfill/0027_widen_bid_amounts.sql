-- Bids from before the change.
-- table: bids
-- key: bid_id
-- differs: max_amount_minor IS DISTINCT FROM amount_minor
-- online: ALTER TABLE bids VALIDATE CONSTRAINT bids_max_amount_minor_positive
-- online: ALTER TABLE bids VALIDATE CONSTRAINT bids_amounts_equal
-- online: ANALYZE bids
UPDATE bids SET max_amount_minor = amount_minor
WHERE bid_id BETWEEN :from AND :upto AND max_amount_minor IS NULL
