#!/bin/bash
# MariaDB, with the environment variables of the public images of MariaDB and MySQL: an empty data folder is initialised
# first. Each setting has two names, MARIADB_… and MYSQL_….
set -eo pipefail
. /usr/local/lib/settings.sh

case $1 in '' | -*) set -- mariadbd "$@" ;; esac
case $1 in mariadbd | mysqld) ;; *) exec "$@" ;; esac
for argument; do
    case $argument in -V | --version | '-?' | --help) exec "$@" ;; esac
done

data=/var/lib/mysql
for argument; do
    case $argument in --datadir=*) data=${argument#*=} ;; esac
done
if [ "$(id -u)" = 0 ]; then
    own mysql "$data" /run/mysqld
    as mysql "$0" "$@"
fi

# option NAME [DEFAULT]: sets NAME from MARIADB_NAME or MYSQL_NAME, or their files.
option() {
    setting "MARIADB_$1"
    setting "MYSQL_$1"
    local maria=MARIADB_$1 my=MYSQL_$1
    printf -v "$1" %s "${!maria:-${!my:-$2}}"
}

# quoted TEXT: as a string in SQL.
quoted() {
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\\\'}"
}

client() {
    MYSQL_PWD=$ROOT_PASSWORD mariadb --protocol=socket -u root "$@"
}

accounts() {
    local password host user_password
    password=$(quoted "$ROOT_PASSWORD")
    host=$(quoted "$ROOT_HOST")
    # The installation has made nameless users and a root of each of this host's addresses, without passwords.
    echo "DELETE FROM mysql.global_priv WHERE User = '' OR User = 'root' AND Host <> 'localhost'; FLUSH PRIVILEGES;"
    if [ "$ROOT_HOST" != localhost ]; then
        echo "CREATE USER root@$host IDENTIFIED BY $password; GRANT ALL ON *.* TO root@$host WITH GRANT OPTION;"
    fi
    [ -z "$DATABASE" ] || echo "CREATE DATABASE IF NOT EXISTS \`$DATABASE\`;"
    if [ -n "$USER" ] && [ -n "$PASSWORD" ]; then
        user_password=$(quoted "$PASSWORD")
        echo "CREATE USER $(quoted "$USER")@'%' IDENTIFIED BY $user_password;"
        [ -z "$DATABASE" ] || echo "GRANT ALL ON \`${DATABASE//_/\\_}\`.* TO $(quoted "$USER")@'%';"
    fi
    echo "ALTER USER root@localhost IDENTIFIED BY $password;"
}

run_scripts() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
        *.sql) client "$DATABASE" <"$file" ;;
        *.sql.gz) gunzip -c "$file" | client "$DATABASE" ;;
        *) [ ! -e "$file" ] || echo "entry point: $file is left alone" ;;
        esac
    done
}

if [ ! -d "$data/mysql" ]; then
    option ROOT_PASSWORD
    option ROOT_HOST %
    option RANDOM_ROOT_PASSWORD
    option ALLOW_EMPTY_ROOT_PASSWORD "$MYSQL_ALLOW_EMPTY_PASSWORD"
    option DATABASE
    option USER
    option PASSWORD
    if [ -n "$RANDOM_ROOT_PASSWORD" ]; then
        ROOT_PASSWORD=$(head -c 18 /dev/urandom | base64)
        echo "GENERATED ROOT PASSWORD: $ROOT_PASSWORD"
    fi
    [ -n "$ROOT_PASSWORD$ALLOW_EMPTY_ROOT_PASSWORD" ] ||
        fail "one of MYSQL_ROOT_PASSWORD, MYSQL_RANDOM_ROOT_PASSWORD, MYSQL_ALLOW_EMPTY_PASSWORD is needed (or MARIADB_…)"
    mariadb-install-db --datadir="$data" --skip-test-db --skip-name-resolve \
        --auth-root-authentication-method=normal >/dev/null
    # Nobody from outside may come in before everything is there.
    "$@" --skip-networking --socket=/run/mysqld/mysqld.sock &
    server=$!
    until ROOT_PASSWORD= client -e 'SELECT 1' >/dev/null 2>&1; do
        kill -0 "$server" || fail 'the server ended while it was initialised'
        sleep 0.1
    done
    accounts | ROOT_PASSWORD= client
    run_scripts
    kill "$server"
    wait "$server"
    echo 'entry point: initialised'
fi
exec "$@"
