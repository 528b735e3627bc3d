#!/bin/sh
# Makes .env for docker-compose.yaml, with random secrets that may stand in a URL; one that is there stays as it is.
set -eu
cd "$(dirname "$0")"
if [ -e .env ]; then echo ".env is there already; its secrets belong to the volumes." >&2; exit 0; fi
key() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; } # with its padding, as Fernet wants it
account_key() { head -c 96 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | head -c 44; } # base64 proper, and no URL breaks it
secret() { key | tr -d '='; }
umask 077
cat > .env.draft <<END
FERNET_KEY=$(key)
JWT_SECRET=$(secret)
API_SECRET=$(secret)
ADMIN_PASSWORD=$(secret)
AIRFLOW_DB_PASSWORD=$(secret)
LEDGER_DB_PASSWORD=$(secret)
POSTGRES_PASSWORD=$(secret)
REDIS_PASSWORD=$(secret)
HASH_KEY=$(secret)
SERVICE_BUS_KEY=$(secret)
LOYALTY_KEY=$(secret)
PROFILE_STORE_KEY=$(secret)
AZURITE_KEY=$(account_key)
SQL_PASSWORD=Aa1-$(secret)
BASE_URL=http://localhost:8080
PARALLELISM=8
END
mv .env.draft .env
echo "Made .env; user admin, password: ADMIN_PASSWORD in it." >&2
