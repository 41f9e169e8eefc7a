-- The read model is made anew from the items by a job, which notes here how far it is.

CREATE TABLE rebuilds (
    rebuild_id    uuid        NOT NULL,
    job_id        uuid        NOT NULL,
    state         text        NOT NULL DEFAULT 'running',
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_by    text        NOT NULL,
    reason        text        NOT NULL,
    pass          bigint      NOT NULL DEFAULT 1,
    before        uuid        NOT NULL DEFAULT 'ffffffff-ffff-ffff-ffff-ffffffffffff',
    items         bigint      NOT NULL DEFAULT 0,
    missing       bigint      NOT NULL DEFAULT 0,
    earlier       bigint      NOT NULL DEFAULT 0,
    wrong         bigint      NOT NULL DEFAULT 0,
    checked       bigint      NOT NULL DEFAULT 0,
    wrong_again   bigint      NOT NULL DEFAULT 0,
    progressed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,
    why           text        NOT NULL DEFAULT '',
    CONSTRAINT rebuilds_pkey PRIMARY KEY (rebuild_id),
    CONSTRAINT rebuilds_state_known CHECK (state IN ('running', 'done', 'abandoned'))
);
COMMENT ON COLUMN rebuilds.why IS 'What it waits for; empty where it does not';
COMMENT ON TABLE rebuilds IS 'One row for each time that the read model was made anew; its job moves the cursor page by page';
CREATE UNIQUE INDEX rebuilds_one_at_a_time ON rebuilds (state) WHERE state = 'running';
