-- Our own producers keep a job's arguments in its row: one insertion, one lookup and one deletion a job instead of two of
-- each. sqlxmq's producers go on writing mq_payloads; where args is NULL, the arguments are there.
--
-- args     JSON, as the producer wrote it
-- headers  correlation id and trace, see job::Headers
-- errors   of the tries so far, the newest last: {"at", "try", "class", "error"}; takes the place of mq_payloads.errors

ALTER TABLE mq_msgs
    ADD COLUMN args    json,
    ADD COLUMN headers bytea,
    ADD COLUMN errors  jsonb;
UPDATE mq_msgs m SET errors = p.errors FROM mq_payloads p WHERE p.id = m.id AND p.errors IS NOT NULL;

-- The foreign key of sqlxmq's ordered channels looks for followers of each deleted row by a query of its own. One query
-- for all rows of a statement does it here: a follower takes its predecessor's place in the chain, where sqlxmq would make it
-- first, which fails when another one is. The other side of the key is kept by a trigger that only rows of a chain
-- fire: a predecessor that is gone leaves its follower first.
ALTER TABLE mq_msgs DROP CONSTRAINT mq_msgs_after_message_id_fkey;

CREATE FUNCTION mq_msgs_unchain() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan TO off AS $$
BEGIN
    -- Twice: the first may wait for another deletion in the same chain, which has given us a follower meanwhile.
    FOR pass IN 1..2 LOOP
        UPDATE mq_msgs m
        SET after_message_id = coalesce(
            (WITH RECURSIVE up AS (
                 SELECT g.after_message_id AS id FROM gone g WHERE g.id = m.after_message_id
                 UNION ALL
                 SELECT g.after_message_id FROM up JOIN gone g ON g.id = up.id)
             SELECT up.id FROM up WHERE up.id NOT IN (SELECT id FROM gone) LIMIT 1),
            '00000000-0000-0000-0000-000000000000')
        WHERE m.after_message_id = ANY (ARRAY(SELECT id FROM gone));
    END LOOP;
    RETURN NULL;
END
$$;
CREATE TRIGGER mq_msgs_unchain AFTER DELETE ON mq_msgs REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION mq_msgs_unchain();

CREATE FUNCTION mq_msgs_chain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM mq_msgs WHERE id = NEW.after_message_id FOR KEY SHARE;
    IF NOT FOUND THEN
        NEW.after_message_id := '00000000-0000-0000-0000-000000000000';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER mq_msgs_chain BEFORE INSERT ON mq_msgs FOR EACH ROW
    WHEN (NEW.after_message_id IS NOT NULL AND NEW.after_message_id <> '00000000-0000-0000-0000-000000000000')
    EXECUTE FUNCTION mq_msgs_chain();

-- Messages of sqlxmq's two-phase producers that were never committed: swept once their time is over.
CREATE INDEX mq_msgs_uncommitted_idx ON mq_msgs (attempt_at) WHERE commit_interval IS NOT NULL;

-- How long a run of the kind takes, also while no worker runs: what scaling starts from.
ALTER TABLE job_queues ADD COLUMN mean_ms double precision;
COMMENT ON COLUMN job_queues.mean_ms IS 'Of one run, as the last worker to measure it wrote it down';
