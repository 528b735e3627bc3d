#!/bin/bash
# As the official image begins: makes the cluster once, runs what is in /docker-entrypoint-initdb.d, then serves.
set -eu
[ "$1" = postgres ] || exec "$@"
bin=$(ls -d /usr/lib/postgresql/*/bin) data=/var/lib/postgresql/data
as() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
mkdir -p $data; chown postgres:postgres $data /var/run/postgresql; chmod 700 $data
if [ ! -e $data/PG_VERSION ]; then
  install -m 600 -o postgres /dev/null /tmp/password
  echo "$POSTGRES_PASSWORD" > /tmp/password
  as $bin/initdb -D $data -U postgres -E UTF8 --locale=C.UTF-8 \
    --auth-local=trust --auth-host=scram-sha-256 --pwfile=/tmp/password
  rm /tmp/password
  echo "host all all all scram-sha-256" >> $data/pg_hba.conf
  as $bin/pg_ctl -D $data -w -o "-c listen_addresses=''" start
  for each in /docker-entrypoint-initdb.d/*; do as bash "$each"; done
  as $bin/pg_ctl -D $data -w -m fast stop
fi
exec setpriv --reuid postgres --regid postgres --clear-groups $bin/postgres -D $data -c listen_addresses='*'
