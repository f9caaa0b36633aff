#!/bin/bash
# PostgreSQL, with the environment variables of the public image: an empty PGDATA is initialised first.
set -eo pipefail
. /usr/local/lib/settings.sh

case $1 in -*) set -- postgres "$@" ;; esac
[ "$1" = postgres ] || exec "$@"
for argument; do
    case $argument in -V | --version | '-?' | --help | --describe-config | -C) exec "$@" ;; esac
done

if [ "$(id -u)" = 0 ]; then
    own postgres "$PGDATA" /var/run/postgresql
    as postgres "$0" "$@"
fi

mkdir -p "$PGDATA"
# At each start: a group that the pod gives its volumes (fsGroup) may have opened the folder, which the server refuses.
chmod 00700 "$PGDATA" || true

# query DATABASE: runs the SQL of its input.
query() {
    psql --no-psqlrc --no-password --quiet -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$1" "${@:2}"
}

make_cluster() {
    local -a arguments=()
    read -ra arguments <<<"$POSTGRES_INITDB_ARGS"
    initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=<(echo "$POSTGRES_PASSWORD") "${arguments[@]}"
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
}

# Runs what the user has laid into /docker-entrypoint-initdb.d, in the order of names.
run_scripts() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
        *.sql) query "$POSTGRES_DB" -f "$file" ;;
        *.sql.gz) gunzip -c "$file" | query "$POSTGRES_DB" ;;
        *) [ ! -e "$file" ] || echo "entry point: $file is left alone" ;;
        esac
    done
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    setting POSTGRES_PASSWORD
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS
    [ -n "$POSTGRES_PASSWORD" ] || [ "$POSTGRES_HOST_AUTH_METHOD" = trust ] ||
        fail "POSTGRES_PASSWORD is needed to initialise a database (or POSTGRES_HOST_AUTH_METHOD=trust)"
    make_cluster
    export PGPASSWORD=$POSTGRES_PASSWORD
    # Nobody from outside may come in before everything is there.
    options=$(printf '%q ' "${@:2}" -c listen_addresses= -p "${PGPORT:-5432}")
    pg_ctl -D "$PGDATA" -o "$options" -w start
    [ "$POSTGRES_DB" = postgres ] || query postgres -v name="$POSTGRES_DB" <<<'CREATE DATABASE :"name"'
    run_scripts
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD
    echo 'entry point: initialised'
fi
exec "$@"
