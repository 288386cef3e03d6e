#!/bin/sh
# Makes a database cluster in $PGDATA when it holds none, then runs the server as `postgres`.
# Understands POSTGRES_PASSWORD, POSTGRES_PASSWORD_FILE, POSTGRES_USER, POSTGRES_DB and POSTGRES_HOST_AUTH_METHOD.
set -e
case "$1" in
-*) set -- postgres "$@" ;;
esac
if [ "$1" != postgres ]; then
    exec "$@"
fi
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /run/postgresql
    chown -R postgres:postgres "$PGDATA" /run/postgresql
    chmod 700 "$PGDATA"
    exec su -p -s /bin/sh postgres -c 'exec "$0" "$@"' -- "$(command -v docker-entrypoint.sh)" "$@"
fi
if [ -s "$PGDATA/PG_VERSION" ]; then
    exec "$@"
fi
if [ -n "$POSTGRES_PASSWORD_FILE" ]; then
    POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
fi
if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
    echo "error: a new database needs a password: set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE" >&2
    exit 1
fi
user=${POSTGRES_USER:-postgres}
password_file=$(mktemp)
printf '%s\n' "$POSTGRES_PASSWORD" > "$password_file"
set +e
if [ -n "$POSTGRES_PASSWORD" ]; then
    initdb --username="$user" --encoding=UTF8 --locale=C --pwfile="$password_file" > /dev/null
else
    initdb --username="$user" --encoding=UTF8 --locale=C > /dev/null
fi
status=$?
set -e
rm -f "$password_file"
[ "$status" = 0 ] || exit "$status"
# Just-in-time compilation wants LLVM, which this image leaves out.
printf "listen_addresses = '*'\njit = off\n" >> "$PGDATA/postgresql.conf"
printf 'host all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >> "$PGDATA/pg_hba.conf"
if [ "${POSTGRES_DB:-$user}" != postgres ]; then
    pg_ctl --wait --silent -o "-c listen_addresses=''" start > /dev/null
    createdb --username="$user" "${POSTGRES_DB:-$user}"
    pg_ctl --wait --silent -m fast stop > /dev/null
fi
unset POSTGRES_PASSWORD
exec "$@"
