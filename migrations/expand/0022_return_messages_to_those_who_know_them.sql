-- A message that tells of something which a version of a worker does not know is parked, and goes back to its consumer by itself
-- once a worker lives that was built with other contracts.

ALTER TABLE parked_messages ADD COLUMN unknown_to text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN parked_messages.unknown_to IS
    'The contracts of the workers that did not know what it tells of; empty where it was parked for another reason';
CREATE INDEX parked_messages_unknown_idx ON parked_messages (handler, parked_at) WHERE unknown_to <> '{}';
