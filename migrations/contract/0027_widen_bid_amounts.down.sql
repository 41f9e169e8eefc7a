-- amount_minor as it was before: every row has it, and every new one will.
ALTER TABLE bids RENAME COLUMN amount_minor_old TO amount_minor;
ALTER TABLE bids ALTER COLUMN max_amount_minor DROP NOT NULL;
CREATE OR REPLACE FUNCTION keep_bid_amounts_equal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.amount_minor IS NULL THEN
        NEW.amount_minor := NEW.max_amount_minor;
    ELSIF NEW.max_amount_minor IS NULL THEN
        NEW.max_amount_minor := NEW.amount_minor;
        PERFORM nextval('bids_amount_minor_writes');
    END IF;
    RETURN NEW;
END $$;
