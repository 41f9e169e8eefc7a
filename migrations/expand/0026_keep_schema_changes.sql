-- What is known of changes that last longer than their expand: who lives with which form of the schema, how far rows
-- are filled, what was taken away, and what operators did.

CREATE TABLE processes (
    process_id uuid             NOT NULL,
    process    text             NOT NULL,
    version    text             NOT NULL,
    host       text             NOT NULL,
    knows      bigint           NOT NULL,
    epoch      bigint           NOT NULL,
    p99_ms     double precision,
    started_at timestamptz      NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz      NOT NULL DEFAULT clock_timestamp(),
    left_at    timestamptz,
    CONSTRAINT processes_pkey PRIMARY KEY (process_id)
);
COMMENT ON TABLE processes IS 'Processes that live, each by itself: a program without a row is an older version';
COMMENT ON COLUMN processes.knows IS 'The newest change it was built with: it needs the old forms of all that come after';
COMMENT ON COLUMN processes.epoch IS 'All its transactions go by the phases of this epoch, or of a later one';

CREATE TABLE schema_epoch (
    is_only boolean NOT NULL DEFAULT true,
    epoch   bigint  NOT NULL,
    CONSTRAINT schema_epoch_pkey PRIMARY KEY (is_only),
    CONSTRAINT schema_epoch_only_one CHECK (is_only)
);
COMMENT ON TABLE schema_epoch IS 'Grows whenever a phase of a change begins';
INSERT INTO schema_epoch (epoch) VALUES (1);

CREATE TABLE schema_steps (
    step_id  bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    change   bigint      NOT NULL,
    name     text        NOT NULL,
    step     text        NOT NULL,
    checksum bytea       NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken_by text        NOT NULL,
    reason   text        NOT NULL,
    evidence jsonb       NOT NULL,
    CONSTRAINT schema_steps_pkey PRIMARY KEY (step_id),
    CONSTRAINT schema_steps_known CHECK (step IN ('contract', 'revert', 'drop'))
);
COMMENT ON TABLE schema_steps IS 'What was taken away, brought back and dropped, when, by whom and on which evidence';

CREATE TABLE schema_meters (
    change     bigint      NOT NULL,
    value      bigint      NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT schema_meters_pkey PRIMARY KEY (change)
);
COMMENT ON TABLE schema_meters IS 'Writes in an old form, as a process last saw their sequence move';

CREATE TABLE backfills (
    change            bigint           NOT NULL,
    name              text             NOT NULL,
    table_name        text             NOT NULL,
    generation        uuid             NOT NULL,
    state             text             NOT NULL DEFAULT 'running',
    stage             text             NOT NULL DEFAULT 'chunks',
    online_step       integer          NOT NULL DEFAULT 0,
    pass              integer          NOT NULL DEFAULT 1,
    why               text             NOT NULL DEFAULT '',
    cursor            text[],
    upper             text[],
    chunk_rows        integer          NOT NULL,
    target_ms         integer          NOT NULL,
    most_rows         integer          NOT NULL DEFAULT 20000,
    rest_ratio        real             NOT NULL DEFAULT 0.1,
    p99_limit_ms      integer          NOT NULL DEFAULT 250,
    wal_limit_bytes_s bigint           NOT NULL DEFAULT 134217728,
    lag_limit_ms      integer          NOT NULL DEFAULT 10000,
    rows_estimated    bigint           NOT NULL,
    rows_passed       bigint           NOT NULL DEFAULT 0,
    rows_changed      bigint           NOT NULL DEFAULT 0,
    chunks            bigint           NOT NULL DEFAULT 0,
    busy_ms           bigint           NOT NULL DEFAULT 0,
    rate              double precision NOT NULL DEFAULT 0,
    throttled_by      text             NOT NULL DEFAULT '',
    throttled_ms      bigint           NOT NULL DEFAULT 0,
    halvings          integer          NOT NULL DEFAULT 0,
    critical_since    timestamptz,
    wal_lsn           bigint           NOT NULL DEFAULT 0,
    looked_at         timestamptz,
    started_at        timestamptz      NOT NULL DEFAULT clock_timestamp(),
    started_by        text             NOT NULL,
    progressed_at     timestamptz      NOT NULL DEFAULT clock_timestamp(),
    finished_at       timestamptz,
    evidence          jsonb            NOT NULL DEFAULT '{}',
    CONSTRAINT backfills_pkey PRIMARY KEY (change),
    CONSTRAINT backfills_state_known CHECK (state IN ('running', 'paused', 'done', 'cancelled')),
    CONSTRAINT backfills_stage_known CHECK (stage IN ('chunks', 'waiting', 'online'))
);
COMMENT ON TABLE backfills IS 'One row for each backfill that was started; a chunk locks it, fills, and moves the cursor';
CREATE UNIQUE INDEX backfills_one_per_table ON backfills (table_name) WHERE state IN ('running', 'paused');

CREATE TABLE backfill_transitions (
    transition_id bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    change        bigint      NOT NULL,
    from_state    text        NOT NULL,
    to_state      text        NOT NULL,
    made_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    made_by       text        NOT NULL,
    reason        text        NOT NULL,
    CONSTRAINT backfill_transitions_pkey PRIMARY KEY (transition_id)
);
CREATE INDEX backfill_transitions_change_idx ON backfill_transitions (change, transition_id);

CREATE TABLE operator_actions (
    action_id   bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    acted_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    operator_id text        NOT NULL,
    action      text        NOT NULL,
    target      text        NOT NULL,
    reason      text        NOT NULL,
    details     jsonb       NOT NULL DEFAULT '{}',
    CONSTRAINT operator_actions_pkey PRIMARY KEY (action_id),
    CONSTRAINT operator_actions_reason_length CHECK (char_length(reason) BETWEEN 1 AND 500)
);
COMMENT ON TABLE operator_actions IS 'What operators did, and why: rows are inserted, never updated or deleted';
CREATE FUNCTION refuse_change_of_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'operator_actions is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER operator_actions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_actions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_audit();
