-- The transactional outbox. An event is a row written by the transaction that caused it; a relay publishes it and
-- deletes it after the broker's confirm. Rows of one key (an item) share a shard, and one relay at a time holds a
-- shard's lease, so a key's events leave in order.

CREATE TABLE outbox (
    outbox_id      bigint      GENERATED ALWAYS AS IDENTITY,
    event_id       uuid        NOT NULL,
    shard          smallint    NOT NULL,
    key            text        NOT NULL,
    version        bigint      NOT NULL,
    routing_key    text        NOT NULL,
    message_type   text        NOT NULL,
    payload        bytea       NOT NULL,
    correlation_id text        NOT NULL,
    traceparent    text        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts       integer     NOT NULL DEFAULT 0,
    retry_at       timestamptz,
    last_error     text,
    CONSTRAINT outbox_pkey PRIMARY KEY (outbox_id),
    CONSTRAINT outbox_event_id_key UNIQUE (event_id),
    CONSTRAINT outbox_key_version_key UNIQUE (key, version),
    CONSTRAINT outbox_shard_range CHECK (shard BETWEEN 0 AND 15)
);
COMMENT ON TABLE outbox IS 'Events committed and not yet confirmed by the broker; empty when the relay keeps up';
COMMENT ON COLUMN outbox.version IS 'The key''s gapless version: the order in which its events leave';
COMMENT ON COLUMN outbox.retry_at IS 'Set when the broker refused the event: it, and its key''s later events, wait';
CREATE INDEX outbox_shard_idx ON outbox (shard, outbox_id);

CREATE TABLE outbox_shards (
    shard        smallint    NOT NULL,
    lease_token  uuid,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT outbox_shards_pkey PRIMARY KEY (shard)
);
COMMENT ON TABLE outbox_shards IS 'Who may publish a shard''s events, until when; sixteen rows, never more';
INSERT INTO outbox_shards (shard) SELECT generate_series(0, 15);
