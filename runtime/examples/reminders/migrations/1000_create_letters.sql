-- The example's own tables. The other migrations here are the runtime's.

CREATE TABLE letters (
    letter_id bigint      GENERATED ALWAYS AS IDENTITY,
    who       text        NOT NULL,
    text      text        NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT letters_pkey PRIMARY KEY (letter_id)
);

CREATE TABLE digests (
    digest_id uuid   NOT NULL,
    who       text   NOT NULL,
    letters   bigint NOT NULL,
    CONSTRAINT digests_pkey PRIMARY KEY (digest_id)
);
