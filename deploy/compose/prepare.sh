#!/bin/sh
# Makes what `docker compose up` needs and nobody should choose by hand: secrets (random, kept) and .env.
# Safe to run again: what is there stays.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets bots
# The jobs of the trading bots write here as BOTS_USER.
chmod 0777 bots

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# The folder is closed to others; the files themselves are open, because containers read them as another user.
keep() {
  # An engine that was started without the file has left a folder in its place.
  [ ! -d "secrets/$1" ] || rmdir "secrets/$1"
  [ -s "secrets/$1" ] || { cat >"secrets/$1"; chmod 0444 "secrets/$1"; echo "made secrets/$1"; }
}

random | keep postgres_password
printf 'postgresql+asyncpg://tieout:%s@postgres:5432/tieout\n' "$(cat secrets/postgres_password)" | keep database_url
random | keep daily_token
random | keep grafana_password
printf '# Signing secrets of incoming webhooks (docs/ingest.md):\n# acme: {stripe: {provider: stripe, secrets: [whsec_...]}}\n{}\n' | keep webhook_secrets

[ -e .env ] || { cp .env.example .env; echo "made .env from .env.example"; }
