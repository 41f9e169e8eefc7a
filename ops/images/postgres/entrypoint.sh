#!/bin/sh
# Makes the cluster when there is none, says so as the official image does, and becomes the server.
set -eu
as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups --"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    install -d -o postgres -g postgres -m 0700 "$PGDATA"
    install -d -o postgres -g postgres /run/postgresql
    password=${POSTGRES_PASSWORD:-$(cat "${POSTGRES_PASSWORD_FILE:?POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE is required}")}
    printf '%s\n' "$password" > /run/postgresql/password
    chown postgres /run/postgresql/password
    $as_postgres initdb -D "$PGDATA" -U "${POSTGRES_USER:-postgres}" --pwfile=/run/postgresql/password \
        --auth=scram-sha-256 -E UTF8 --locale=C.UTF-8 --no-sync > /dev/null
    rm /run/postgresql/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
    echo "PostgreSQL init process complete; ready for start up."
fi
exec $as_postgres "$@"
