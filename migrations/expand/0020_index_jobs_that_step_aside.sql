-- no-transaction
-- Jobs that could not be settled, and have stepped aside for the others of their kind: there are hardly ever any.
CREATE INDEX CONCURRENTLY IF NOT EXISTS mq_msgs_faults_idx ON mq_msgs (channel_name) WHERE faults > 0;
