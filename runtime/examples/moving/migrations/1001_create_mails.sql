-- What the jobs of this example do.
CREATE TABLE mails (
    mail_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text NOT NULL,
    who     text NOT NULL,
    by      text NOT NULL
);
COMMENT ON TABLE mails IS 'What was sent, and whether a job of the crate sqlxmq or a handler has sent it';
