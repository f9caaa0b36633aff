#!/bin/bash
# RabbitMQ, with the environment variables of the public image. The server reads RABBITMQ_DEFAULT_USER, _PASS and _VHOST,
# RABBITMQ_NODENAME and RABBITMQ_USE_LONGNAME itself; the cookie is laid where server and command line look for it.
set -eo pipefail
. /usr/local/lib/settings.sh

case $1 in '') set -- rabbitmq-server ;; esac
case $1 in rabbitmq-server | rabbitmqctl | rabbitmq-diagnostics) ;; *) exec "$@" ;; esac
if [ "$(id -u)" = 0 ]; then
    own rabbitmq /var/lib/rabbitmq
    as rabbitmq "$0" "$@"
fi
setting RABBITMQ_DEFAULT_USER
setting RABBITMQ_DEFAULT_PASS
setting RABBITMQ_ERLANG_COOKIE
cookie=/var/lib/rabbitmq/.erlang.cookie
if [ -n "$RABBITMQ_ERLANG_COOKIE" ]; then
    if [ -e "$cookie" ]; then
        [ "$(<"$cookie")" = "$RABBITMQ_ERLANG_COOKIE" ] ||
            fail "RABBITMQ_ERLANG_COOKIE differs from what $cookie holds"
    else
        (umask 0277 && printf %s "$RABBITMQ_ERLANG_COOKIE" >"$cookie")
    fi
fi
for name in RABBITMQ_DEFAULT_USER RABBITMQ_DEFAULT_PASS RABBITMQ_ERLANG_COOKIE; do
    [ -n "${!name}" ] && [ "$name" != RABBITMQ_ERLANG_COOKIE ] || unset "$name"
done
exec "$@"
