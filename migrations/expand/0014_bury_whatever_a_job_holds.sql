-- A job that can't be moved to dead_jobs stands before all others of its kind for ever. Nothing that its row may hold keeps it
-- from being moved now, and whatever keeps it all the same is counted against it.
--
-- arguments  of a dead job, as they were enqueued: json takes what jsonb refuses (the escape of U+0000). Takes the place of
--            args, which versions before this one go on writing
-- faults     tries to settle the job that failed: it steps aside for longer each time

ALTER TABLE dead_jobs ADD COLUMN arguments json;
COMMENT ON COLUMN dead_jobs.arguments IS 'As they were enqueued; NULL where args has them, written before there was this column';

ALTER TABLE mq_msgs ADD COLUMN faults integer NOT NULL DEFAULT 0;

-- Times before the epoch are passed over by every claim, and infinite ones can't be told or reckoned with.
ALTER TABLE mq_msgs ADD CONSTRAINT mq_msgs_times_finite
    CHECK (attempt_at >= 'epoch' AND attempt_at < '9999-12-31' AND created_at >= 'epoch' AND created_at < '9999-12-31')
    NOT VALID;
