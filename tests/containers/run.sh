#!/usr/bin/env bash
# `make test-containers`: the suite on containers, by a Docker engine where one answers, else by Podman without any
# registry. Says which.
set -euo pipefail
cd "$(dirname "$0")/../.."
export TIEOUT_TEST_KAFKA=testcontainers TIEOUT_TEST_POSTGRES=testcontainers TIEOUT_TEST_CONTAINERS=required
if docker info >/dev/null 2>&1; then
  echo "== a Docker engine answers: official images"
  make --no-print-directory images
elif command -v podman >/dev/null; then
  echo "== no Docker engine: Podman, with images built here"
  export CONTAINERS_CONF=${CONTAINERS_CONF:-$PWD/tests/containers/images/containers.conf}
  TARGETS="matcher ingest alerts" tests/containers/images/build.sh
  socket=$(mktemp -d)/podman.sock
  # Its complaints about systemd, which is not there inside a container, would hide the tests.
  podman --log-level=fatal system service --time=0 "unix://$socket" 2>/dev/null &
  service=$!
  trap 'kill $service; rm -rf "$(dirname "$socket")"' EXIT
  for _ in $(seq 300); do [ -S "$socket" ] && break; sleep 0.1; done
  export DOCKER_HOST=unix://$socket TESTCONTAINERS_RYUK_DISABLED=true TESTCONTAINERS_CONNECTION_MODE=docker_host
  export TIEOUT_TEST_KAFKA_IMAGE=localhost/kafka:local TIEOUT_TEST_POSTGRES_IMAGE=localhost/postgres:local
else
  echo "error: neither a Docker engine nor Podman is here (Debian: podman runc netavark aardvark-dns iptables mmdebstrap)" >&2
  exit 3
fi
nice -n 10 .venv/bin/python -m pytest -ra "${@:-tests/containers}"
