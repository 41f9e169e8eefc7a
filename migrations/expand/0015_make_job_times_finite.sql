-- What versions before 0014 let in: such a job was never claimed, or kept all others from being looked at.

UPDATE mq_msgs SET attempt_at = least(greatest(attempt_at, 'epoch'), timestamptz '9999-12-30'),
                   created_at = least(greatest(created_at, 'epoch'), timestamptz '9999-12-30')
WHERE attempt_at < 'epoch' OR attempt_at >= '9999-12-31' OR created_at < 'epoch' OR created_at >= '9999-12-31';
ALTER TABLE mq_msgs VALIDATE CONSTRAINT mq_msgs_times_finite;
