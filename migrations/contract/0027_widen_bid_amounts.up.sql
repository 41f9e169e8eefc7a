-- amount_minor out of reach. Its trigger goes on to fill it under its other name, so that it can be brought back with
-- nothing lost; and so no bid may be larger than it can hold until it is dropped.
-- valid: bids.bids_amounts_equal
-- valid: bids.bids_max_amount_minor_positive
-- meter: bids_amount_minor_writes
-- quiet: 10m
ALTER TABLE bids RENAME COLUMN amount_minor TO amount_minor_old;
-- Without a scan: bids_amounts_equal says it already, and is valid.
-- squawk-ignore adding-not-nullable-field
ALTER TABLE bids ALTER COLUMN max_amount_minor SET NOT NULL;
CREATE OR REPLACE FUNCTION keep_bid_amounts_equal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.amount_minor_old IS NULL THEN
        NEW.amount_minor_old := NEW.max_amount_minor;
    END IF;
    RETURN NEW;
END $$;
