-- What the queue's own schema lacks: an index for the foreign key to the previous message (without it, each deleted
-- row scans the table), one for claiming a kind's due jobs in order, and a place for jobs that will not be tried again.

CREATE INDEX mq_msgs_after_message_id_idx ON mq_msgs (after_message_id);
CREATE INDEX mq_msgs_channel_name_attempt_at_idx ON mq_msgs (channel_name, attempt_at);

CREATE TABLE dead_jobs (
    job_id         uuid        NOT NULL,
    kind           text        NOT NULL,
    args           jsonb,
    correlation_id text        NOT NULL,
    attempts       integer     NOT NULL,
    last_error     text        NOT NULL,
    enqueued_at    timestamptz NOT NULL,
    died_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT dead_jobs_pkey PRIMARY KEY (job_id)
);
COMMENT ON TABLE dead_jobs IS 'Jobs that failed for good, with their last error: nothing dies silently';
CREATE INDEX dead_jobs_kind_died_at_idx ON dead_jobs (kind, died_at);
