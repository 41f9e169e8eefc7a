-- Receipts: the proof, committed with a handler's effect, that it happened. A retry finds it and changes nothing.

CREATE TABLE idempotency_keys (
    principal       text        NOT NULL,
    operation       text        NOT NULL,
    idempotency_key uuid        NOT NULL,
    request_hash    bytea       NOT NULL,
    -- 0 where the call succeeded and reply holds the encoded message; else the gRPC code, and reply a google.rpc.Status.
    status_code     smallint    NOT NULL,
    reply           bytea       NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (principal, operation, idempotency_key),
    CONSTRAINT idempotency_keys_request_hash_sha256 CHECK (octet_length(request_hash) = 32)
);
COMMENT ON TABLE idempotency_keys IS 'Replies to calls that changed something, given again byte for byte; swept by age';
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);

CREATE TABLE inbox (
    consumer    text        NOT NULL,
    message_id  uuid        NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT inbox_pkey PRIMARY KEY (consumer, message_id)
);
COMMENT ON TABLE inbox IS 'Messages whose effect is committed, per consumer; swept by age';
CREATE INDEX inbox_received_at_idx ON inbox (received_at);

CREATE TABLE schedule_ticks (
    schedule text        NOT NULL,
    tick_at  timestamptz NOT NULL,
    CONSTRAINT schedule_ticks_pkey PRIMARY KEY (schedule)
);
COMMENT ON TABLE schedule_ticks IS 'The newest tick of each schedule that ran: one replica wins it';
