#!/bin/bash
# As Apache's own image: KAFKA_SOME_NAME becomes some.name of server.properties; formats its folder once.
set -euo pipefail
: "${KAFKA_LOG_DIRS:=/var/lib/kafka/data}"
export KAFKA_LOG_DIRS
properties=/tmp/server.properties
env | sed -nE 's/^KAFKA_(.+)$/\1/p' | grep -vE '^(HEAP_OPTS|OPTS)=' | while IFS='=' read -r name value; do
  printf '%s=%s\n' "$(tr 'A-Z_' 'a-z.' <<<"$name")" "$value"
done >"$properties"
if [ ! -e "$KAFKA_LOG_DIRS/meta.properties" ]; then
  java -Xmx128m -XX:+UseSerialGC -cp '/opt/kafka/*' kafka.tools.StorageTool format \
    --cluster-id "${CLUSTER_ID:-dGllb3V0LXRlc3QtMDAwMA}" --config "$properties" >/dev/null
fi
# shellcheck disable=SC2086 # options, several
exec java ${KAFKA_HEAP_OPTS:--Xms256m -Xmx512m} -XX:+UseSerialGC -cp '/opt/kafka/*' kafka.Kafka "$properties"
