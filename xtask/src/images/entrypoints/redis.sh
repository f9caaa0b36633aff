#!/bin/bash
# Redis, as the public image starts it: as the user redis, reachable for other pods.
set -eo pipefail
. /usr/local/lib/settings.sh

case $1 in -* | *.conf) set -- redis-server "$@" ;; esac
[ "$1" = redis-server ] || exec "$@"
if [ "$(id -u)" = 0 ]; then
    own redis /data
    as redis "$0" "$@"
fi
umask 0077
# The public image is built without protected mode, which refuses everybody who is not on the same machine.
case $* in
*protected-mode*) exec "$@" ;;
*) exec "$@" --protected-mode no ;;
esac
