-- no-transaction
-- What a runner of the crate sqlxmq leaves of a job whose last try failed, or is under way: a row that is never due.
CREATE INDEX CONCURRENTLY IF NOT EXISTS mq_msgs_exhausted_idx ON mq_msgs (channel_name) WHERE attempt_at IS NULL;
