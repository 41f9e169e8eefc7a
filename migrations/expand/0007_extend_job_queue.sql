-- What the runtime's own claim and completion need on sqlxmq's schema. A stock sqlxmq producer goes on enqueueing: every
-- new column has a default.
--
-- seq            the order of enqueueing: it breaks ties between equal due times and orders the jobs of one key
-- priority       0 urgent, 1 high, 2 normal, 3 low: a lower level is only claimed when no higher one is due
-- blocked        as many jobs of its key as may run at once stand before it; unblocked when one of them is gone
-- unique_key     at most one queued job of a kind has it; cleared when a leased attempt begins
-- lease_token    the attempt that may complete the job, until leased_until; neither is indexed, so that taking and
--                renewing a lease stays a heap-only update
-- tries, deaths  attempts that failed; attempts whose worker died

ALTER TABLE mq_msgs
    ADD COLUMN seq          bigint      GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN priority     smallint    NOT NULL DEFAULT 2,
    ADD COLUMN blocked      boolean     NOT NULL DEFAULT false,
    ADD COLUMN unique_key   text,
    ADD COLUMN lease_token  uuid,
    ADD COLUMN leased_until timestamptz,
    ADD COLUMN tries        integer     NOT NULL DEFAULT 0,
    ADD COLUMN deaths       integer     NOT NULL DEFAULT 0,
    ADD CONSTRAINT mq_msgs_priority_range CHECK (priority BETWEEN 0 AND 3),
    ADD CONSTRAINT mq_msgs_lease_whole CHECK ((lease_token IS NULL) = (leased_until IS NULL)),
    SET (fillfactor = 70);
COMMENT ON COLUMN mq_msgs.attempts IS 'Tries left';

-- Only what could be claimed is in it, in the order of claiming. It takes the place of sqlxmq's index for its own poll
-- and of ours from 0006.
CREATE INDEX mq_msgs_claim_idx ON mq_msgs (channel_name, priority, attempt_at, seq)
    WHERE NOT blocked AND (after_message_id IS NULL OR after_message_id = '00000000-0000-0000-0000-000000000000');
DROP INDEX mq_msgs_channel_name_channel_args_attempt_at_idx;
DROP INDEX mq_msgs_channel_name_attempt_at_idx;

-- The chain of sqlxmq's ordered channels: only rows that are in one. Most are not, and had two index entries for nothing.
DROP INDEX mq_msgs_after_message_id_idx;
CREATE INDEX mq_msgs_after_message_id_idx ON mq_msgs (after_message_id) WHERE after_message_id IS NOT NULL;
DROP INDEX mq_msgs_channel_name_channel_args_after_message_id_idx;
CREATE UNIQUE INDEX mq_msgs_channel_name_channel_args_after_message_id_idx
    ON mq_msgs (channel_name, channel_args, after_message_id) WHERE after_message_id IS NOT NULL;

CREATE UNIQUE INDEX mq_msgs_unique_key ON mq_msgs (channel_name, unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX mq_msgs_key_blocked_idx ON mq_msgs (channel_name, channel_args, seq) WHERE blocked;
CREATE INDEX mq_msgs_key_unblocked_idx ON mq_msgs (channel_name, channel_args) WHERE channel_args <> '' AND NOT blocked;
CREATE INDEX mq_msgs_deaths_idx ON mq_msgs (channel_name, attempt_at) WHERE deaths > 0;

-- Errors of the tries so far, the newest last: {"at", "try", "class", "error"}.
ALTER TABLE mq_payloads ADD COLUMN errors jsonb;

-- A dead job keeps all that is needed to queue it again.
ALTER TABLE dead_jobs
    ADD COLUMN key      text     NOT NULL DEFAULT '',
    ADD COLUMN priority smallint NOT NULL DEFAULT 2,
    ADD COLUMN retries  integer  NOT NULL DEFAULT 0,
    ADD COLUMN headers  bytea,
    ADD COLUMN errors   jsonb    NOT NULL DEFAULT '[]';
CREATE INDEX dead_jobs_died_at_idx ON dead_jobs (died_at);

CREATE TABLE job_queues (
    kind        text             NOT NULL,
    paused_at   timestamptz,
    paused_by   text,
    tokens      double precision NOT NULL DEFAULT 0,
    refilled_at timestamptz      NOT NULL DEFAULT 'epoch',
    CONSTRAINT job_queues_pkey PRIMARY KEY (kind),
    CONSTRAINT job_queues_paused_by_someone CHECK ((paused_at IS NULL) = (paused_by IS NULL))
);
COMMENT ON TABLE job_queues IS 'What is decided once for all replicas: a pause, the tokens of a rate limit';

CREATE TABLE job_cancellations (
    job_id       uuid        NOT NULL,
    requested_by text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT job_cancellations_pkey PRIMARY KEY (job_id)
);
COMMENT ON TABLE job_cancellations IS 'Running jobs that should stop; workers look at every tick';

-- What follows is about processes that run now: unlogged, since nothing of it outlives a crash of the database anyway.
CREATE UNLOGGED TABLE job_workers (
    worker_id  uuid        NOT NULL,
    process    text        NOT NULL,
    host       text        NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT job_workers_pkey PRIMARY KEY (worker_id)
);
COMMENT ON TABLE job_workers IS 'Workers and their heartbeats';

CREATE UNLOGGED TABLE job_claims (
    worker_id  uuid        NOT NULL,
    kind       text        NOT NULL,
    lane       integer     NOT NULL,
    job_ids    uuid[]      NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT job_claims_pkey PRIMARY KEY (worker_id, kind, lane)
);
COMMENT ON TABLE job_claims IS 'What each lane is running, written before it runs: it tells which job killed a worker';

CREATE UNLOGGED TABLE job_loads (
    worker_id   uuid             NOT NULL,
    kind        text             NOT NULL,
    concurrency integer          NOT NULL,
    running     integer          NOT NULL,
    mean_ms     double precision NOT NULL,
    CONSTRAINT job_loads_pkey PRIMARY KEY (worker_id, kind)
);
COMMENT ON TABLE job_loads IS 'How busy each worker is with each kind, as of its last heartbeat';
