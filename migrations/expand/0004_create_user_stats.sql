-- What a user has done, folded from events, and the ledger that makes spending count once.

CREATE TABLE user_stats (
    user_id           text        NOT NULL,
    currency          text        NOT NULL,
    bids_placed       bigint      NOT NULL DEFAULT 0,
    items_won         bigint      NOT NULL DEFAULT 0,
    total_spent_minor bigint      NOT NULL DEFAULT 0,
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT user_stats_pkey PRIMARY KEY (user_id, currency),
    CONSTRAINT user_stats_not_negative CHECK (bids_placed >= 0 AND items_won >= 0 AND total_spent_minor >= 0)
);
COMMENT ON TABLE user_stats IS 'Per user and currency: never summed across currencies';

CREATE TABLE spend_ledger (
    item_id      uuid        NOT NULL,
    user_id      text        NOT NULL,
    currency     text        NOT NULL,
    amount_minor bigint      NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT spend_ledger_pkey PRIMARY KEY (item_id),
    CONSTRAINT spend_ledger_amount_minor_positive CHECK (amount_minor > 0)
);
COMMENT ON TABLE spend_ledger IS
    'One row per item sold. The total moves only when this insert succeeds, so a replay from any year cannot count twice';
CREATE INDEX spend_ledger_user_id_idx ON spend_ledger (user_id, currency);
