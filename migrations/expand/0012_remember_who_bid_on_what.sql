-- The items that each user has bid on, kept by the consumer of the statistics. Without a foreign key: its check would lock the
-- item's row, which bids wait for.

CREATE TABLE user_items (
    user_id text NOT NULL CONSTRAINT user_items_user_id_length CHECK (char_length(user_id) BETWEEN 1 AND 64),
    item_id uuid NOT NULL,
    PRIMARY KEY (user_id, item_id)
);

INSERT INTO user_items (user_id, item_id) SELECT DISTINCT bidder_id, item_id FROM bids;
