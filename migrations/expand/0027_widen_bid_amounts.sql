-- A bid's amount was an integer. It gets a column with room for every amount, and a name that says what it is: the most
-- that the bidder would pay. Old programs write and read amount_minor, new ones max_amount_minor alone; a trigger keeps
-- them equal, a constraint proves it, and a sequence counts what is still written in the old form.

ALTER TABLE bids ADD COLUMN max_amount_minor bigint;
COMMENT ON COLUMN bids.max_amount_minor IS 'The most that the bidder would pay';

CREATE SEQUENCE bids_amount_minor_writes;
-- Whoever writes a bid moves it, and every process reads it.
GRANT USAGE, SELECT ON SEQUENCE bids_amount_minor_writes TO PUBLIC;
COMMENT ON SEQUENCE bids_amount_minor_writes IS 'Rows written with amount_minor alone';

CREATE FUNCTION keep_bid_amounts_equal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.amount_minor IS NULL THEN
        NEW.amount_minor := NEW.max_amount_minor;
    ELSIF NEW.max_amount_minor IS NULL THEN
        NEW.max_amount_minor := NEW.amount_minor;
        PERFORM nextval('bids_amount_minor_writes');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER bids_keep_amounts_equal BEFORE INSERT OR UPDATE ON bids
    FOR EACH ROW EXECUTE FUNCTION keep_bid_amounts_equal();

ALTER TABLE bids ADD CONSTRAINT bids_max_amount_minor_positive CHECK (max_amount_minor > 0) NOT VALID;
ALTER TABLE bids ADD CONSTRAINT bids_amounts_equal
    CHECK (max_amount_minor IS NOT NULL AND max_amount_minor = amount_minor) NOT VALID;
COMMENT ON TABLE bids IS 'The ledger of accepted bids: rows are inserted, never updated or deleted by the programs';

-- What a backfill leaves behind is to be cleaned up while it runs, and not once a fifth of the table is dead.
ALTER TABLE bids SET (autovacuum_vacuum_scale_factor = 0.02);
