-- When a worker last settled a job of a kind, done or not: a queue where jobs are due and nobody has for long stands still.

ALTER TABLE job_loads ADD COLUMN progressed_at timestamptz;
COMMENT ON COLUMN job_loads.progressed_at IS 'When this worker last settled a job of the kind, as of its last heartbeat';
