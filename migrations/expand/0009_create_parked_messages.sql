-- Messages that no try could handle. They arrive on the broker's parking queue, where they can neither be listed nor
-- picked one by one without counting deliveries against them; workers move them here.

CREATE TABLE parked_messages (
    parked_id      uuid        NOT NULL,
    handler        text        NOT NULL,
    message_id     text        NOT NULL,
    message_type   text        NOT NULL,
    routing_key    text        NOT NULL,
    correlation_id text        NOT NULL,
    traceparent    text        NOT NULL,
    error          text        NOT NULL,
    payload        bytea       NOT NULL,
    parked_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    retry_at       timestamptz,
    CONSTRAINT parked_messages_pkey PRIMARY KEY (parked_id)
);
COMMENT ON COLUMN parked_messages.parked_id IS 'One parking of one message: retried and parked again, it is another';
COMMENT ON COLUMN parked_messages.retry_at IS 'When it was asked to be sent back to its consumer; gone once it is there';
CREATE INDEX parked_messages_parked_at_idx ON parked_messages (parked_at, parked_id);
CREATE INDEX parked_messages_handler_idx ON parked_messages (handler, parked_at, parked_id);
