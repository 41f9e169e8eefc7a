-- The relay asks of every event whether an earlier one of its key is held back. Few ever are: this index is nearly empty,
-- where the unique one on (key, version) holds every event.

CREATE INDEX outbox_held_idx ON outbox (key, version) WHERE retry_at IS NOT NULL;
