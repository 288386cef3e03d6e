#!/bin/sh
# Options alone mean the server; a server that starts as root gives its data to `redis` and goes on as that user.
set -e
case "$1" in
-* | *.conf) set -- redis-server "$@" ;;
esac
if [ "$1" = redis-server ]; then
    # Clients come over the container's network, never from its loopback.
    set -- "$@" --protected-mode no
    if [ "$(id -u)" = 0 ]; then
        chown -R redis:redis .
        exec su -p -s /bin/sh redis -c 'exec "$0" "$@"' -- "$@"
    fi
fi
exec "$@"
