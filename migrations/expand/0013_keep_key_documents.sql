-- The documents of public keys that were read from a URL last: a service can start with them while that server is down.

CREATE TABLE key_documents (
    url      text        NOT NULL,
    document text        NOT NULL,
    read_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT key_documents_pkey PRIMARY KEY (url)
);
COMMENT ON TABLE key_documents IS 'JWKS documents as they were last read; no older than GAVEL_JWKS_MAX_AGE_S they are believed';
COMMENT ON COLUMN key_documents.read_at IS 'When it was last seen to be so, to ten minutes';
