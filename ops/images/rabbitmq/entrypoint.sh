#!/bin/sh
# Writes the default user into the configuration and becomes the server.
set -eu
cat > /etc/rabbitmq/rabbitmq.conf <<EOF
default_user = ${RABBITMQ_DEFAULT_USER:-guest}
default_pass = ${RABBITMQ_DEFAULT_PASS:-guest}
loopback_users = none
log.console = true
log.console.level = info
disk_free_limit.absolute = 50MB
EOF
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+sbwt none"
chown -R rabbitmq:rabbitmq /var/lib/rabbitmq
chown rabbitmq:rabbitmq /etc/rabbitmq /etc/rabbitmq/rabbitmq.conf
exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups -- /usr/lib/rabbitmq/bin/rabbitmq-server
