-- Items and the ledger of accepted bids.
--
-- One number per item, `version`, is stamped under the item's row lock: creation is 1, every accepted bid and the
-- close add one. It is the bid's `sequence`, the order of the item's events, and what a cache compares before it
-- overwrites. Amounts are minor units of the item's currency.

CREATE TABLE items (
    item_id           uuid        NOT NULL,
    seller_id         text        NOT NULL,
    title             text        NOT NULL,
    currency          text        NOT NULL,
    start_price_minor bigint      NOT NULL,
    -- The step ladder's version is pinned when the item is published, so a new ladder never changes a running auction.
    ladder_version    smallint    NOT NULL,
    price_minor       bigint,
    leader_id         text,
    bid_count         bigint      NOT NULL DEFAULT 0,
    version           bigint      NOT NULL DEFAULT 1,
    starts_at         timestamptz NOT NULL,
    ends_at           timestamptz NOT NULL,
    closed_at         timestamptz,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT items_pkey PRIMARY KEY (item_id),
    CONSTRAINT items_seller_id_length CHECK (char_length(seller_id) BETWEEN 1 AND 64),
    CONSTRAINT items_title_length CHECK (char_length(title) BETWEEN 1 AND 200),
    CONSTRAINT items_currency_iso4217 CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT items_start_price_minor_positive CHECK (start_price_minor > 0),
    CONSTRAINT items_ends_after_start CHECK (ends_at > starts_at),
    CONSTRAINT items_price_with_leader CHECK ((price_minor IS NULL) = (leader_id IS NULL)),
    CONSTRAINT items_price_with_bids CHECK ((price_minor IS NULL) = (bid_count = 0)),
    CONSTRAINT items_price_not_below_start CHECK (price_minor >= start_price_minor),
    CONSTRAINT items_version_counts_bids CHECK (version > bid_count),
    CONSTRAINT items_closed_after_end CHECK (closed_at >= ends_at)
);
COMMENT ON TABLE items IS 'What is auctioned, with its current price; locked FOR UPDATE while a bid is decided';
COMMENT ON COLUMN items.version IS 'Gapless per item: 1 + accepted bids + 1 when closed';

CREATE TABLE bids (
    bid_id       uuid        NOT NULL,
    item_id      uuid        NOT NULL,
    sequence     bigint      NOT NULL,
    bidder_id    text        NOT NULL,
    amount_minor integer     NOT NULL,
    decided_at   timestamptz NOT NULL,
    CONSTRAINT bids_pkey PRIMARY KEY (bid_id),
    CONSTRAINT bids_item_id_fkey FOREIGN KEY (item_id) REFERENCES items (item_id),
    CONSTRAINT bids_item_id_sequence_key UNIQUE (item_id, sequence),
    CONSTRAINT bids_bidder_id_length CHECK (char_length(bidder_id) BETWEEN 1 AND 64),
    CONSTRAINT bids_amount_minor_positive CHECK (amount_minor > 0)
);
COMMENT ON TABLE bids IS 'The ledger of accepted bids: rows are inserted, never updated or deleted';
COMMENT ON COLUMN bids.sequence IS 'items.version at which the bid was accepted';
COMMENT ON COLUMN bids.amount_minor IS
    'An integer: the rules refuse amounts above their product ceiling, which lies below its range';
