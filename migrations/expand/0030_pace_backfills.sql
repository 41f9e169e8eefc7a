-- A backfill goes as fast as the bids beside it stay as they are without it.

ALTER TABLE backfills
    ADD COLUMN p99_ratio     real             NOT NULL DEFAULT 1.25,
    ADD COLUMN p99_before_ms double precision,
    ADD COLUMN p99_noted_at  timestamptz,
    ADD COLUMN still_since   timestamptz,
    ADD COLUMN pace          double precision NOT NULL DEFAULT 1,
    ADD COLUMN paced_at      timestamptz;
COMMENT ON COLUMN backfills.pace IS 'The share of its time that it works: less while bids are slower than p99_ratio times p99_before_ms';
