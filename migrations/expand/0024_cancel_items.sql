-- An item that was cancelled is closed as well, and its period was cut at that moment: a version of the program that knows nothing
-- of this takes no bid on it either.

ALTER TABLE items ADD COLUMN cancel_reason text;
ALTER TABLE items ADD CONSTRAINT items_cancelled_is_closed CHECK (cancel_reason IS NULL OR closed_at IS NOT NULL) NOT VALID;
ALTER TABLE items ADD CONSTRAINT items_cancel_reason_length CHECK (char_length(cancel_reason) <= 200) NOT VALID;
COMMENT ON COLUMN items.cancel_reason IS 'Why it was cancelled, perhaps empty; null unless it was';
