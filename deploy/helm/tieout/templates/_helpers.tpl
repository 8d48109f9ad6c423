{{- define "tieout.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tieout.selector" -}}
app.kubernetes.io/name: tieout
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tieout.labels" -}}
{{ include "tieout.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tieout.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "tieout.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{/* What each workload is: its image, its arguments, its port and what it reaches. */}}
{{- define "tieout.workloads" -}}
ingest: {image: ingest, args: [ingest, --role=http], port: 8080, kind: Deployment, http: true, needs: [kafka, webhooks]}
normaliser: {image: ingest, args: [ingest, --role=normaliser], port: 8080, kind: StatefulSet, needs: [kafka, pod], group: {{ .Values.config.TIEOUT_INGEST_GROUP | default "tieout.ingest" }}, topic: inbox, partitions: {{ .Values.topics.inboxPartitions }}}
matcher: {image: matcher, args: [matcher], port: 8082, kind: StatefulSet, needs: [kafka, pod], group: {{ .Values.config.TIEOUT_MATCHER_GROUP | default "tieout.matcher" }}, topic: legs, partitions: {{ .Values.topics.partitions }}}
alerts: {image: alerts, args: [alerts, --role=api, --role=dispatcher, --role=scheduler, --role=explainer], port: 8081, kind: Deployment, http: true, needs: [kafka, database, reconciliation, outgoing]}
sink: {image: alerts, args: [alerts, --role=sink], port: 8081, kind: StatefulSet, needs: [kafka, database, pod], group: {{ .Values.config.TIEOUT_SINK_GROUP | default "tieout-alerts-sink" }}, topic: discrepancies, partitions: {{ .Values.topics.partitions }}}
{{- if .Values.pollers.fileSecret }}
poller: {image: ingest, args: [ingest, --role=poller], port: 8080, kind: Deployment, needs: [kafka, pollers, outgoing]}
{{- end }}
{{- end }}

{{/* Give a dict with root, name: returns its settings, the defaults under its own. */}}
{{- define "tieout.settings" -}}
{{- $own := index .root.Values.workloads .name | default dict -}}
{{- mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy $own) | toYaml -}}
{{- end }}

{{- define "tieout.image" -}}
{{ printf "%s/tieout-%s:%s" .root.Values.image.registry .image (.root.Values.image.tag | default .root.Chart.AppVersion) }}
{{- end }}

{{- define "tieout.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tieout.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Variables: give a dict with root, needs, port (0 for jobs), config, owner. */}}
{{- define "tieout.env" -}}
{{- $v := .root.Values -}}
{{- $sasl := hasPrefix "SASL" $v.kafka.securityProtocol -}}
- {name: TIEOUT_ENVIRONMENT, value: {{ $v.environment | default .root.Release.Namespace | quote }}}
- {name: TIEOUT_LOG_LEVEL, value: {{ $v.log.level | quote }}}
- {name: TIEOUT_LOG_FORMAT, value: {{ $v.log.format | quote }}}
{{- if .port }}
- {name: TIEOUT_HTTP_HOST, value: 0.0.0.0}
- {name: TIEOUT_HTTP_PORT, value: {{ .port | quote }}}
{{- end }}
{{- if $v.tracing.endpoint }}
- {name: TIEOUT_OTEL_ENDPOINT, value: {{ $v.tracing.endpoint | quote }}}
- {name: TIEOUT_OTEL_SAMPLE_RATIO, value: {{ $v.tracing.sampleRatio | quote }}}
{{- if $v.tracing.headersSecret }}
- {name: TIEOUT_OTEL_HEADERS_FILE, value: /run/secrets/tieout/tracing/{{ $v.tracing.headersKey }}}
{{- end }}
{{- end }}
{{- if has "kafka" .needs }}
- {name: TIEOUT_KAFKA_BOOTSTRAP_SERVERS, value: {{ $v.kafka.bootstrapServers | quote }}}
- {name: TIEOUT_KAFKA_SECURITY_PROTOCOL, value: {{ $v.kafka.securityProtocol }}}
- {name: TIEOUT_KAFKA_TOPIC_PREFIX, value: {{ $v.kafka.topicPrefix | quote }}}
{{- if $sasl }}
- {name: TIEOUT_KAFKA_SASL_MECHANISM, value: {{ $v.kafka.saslMechanism }}}
- {name: TIEOUT_KAFKA_SASL_USERNAME, value: {{ required "kafka.username is needed with a SASL protocol" $v.kafka.username | quote }}}
- {name: TIEOUT_KAFKA_SASL_PASSWORD_FILE, value: /run/secrets/tieout/kafka/{{ $v.kafka.passwordKey }}}
{{- end }}
{{- if $v.kafka.caSecret }}
- {name: TIEOUT_KAFKA_SSL_CAFILE, value: /run/secrets/tieout/kafka-ca/{{ $v.kafka.caKey }}}
{{- end }}
{{- if $v.kafka.clientCertificateSecret }}
- {name: TIEOUT_KAFKA_SSL_CERTFILE, value: /run/secrets/tieout/kafka-client/tls.crt}
- {name: TIEOUT_KAFKA_SSL_KEYFILE, value: /run/secrets/tieout/kafka-client/tls.key}
{{- end }}
{{- end }}
{{- if has "database" .needs }}
- {name: TIEOUT_DATABASE_URL_FILE, value: /run/secrets/tieout/database/{{ if and .owner $v.database.ownerUrlSecret }}{{ $v.database.ownerUrlKey }}{{ else }}{{ $v.database.urlKey }}{{ end }}}
- {name: TIEOUT_DATABASE_ROLE, value: {{ $v.database.role | quote }}}
{{- end }}
{{- if and (has "webhooks" .needs) $v.webhooks.secretsSecret }}
- {name: TIEOUT_WEBHOOK_SECRETS_FILE, value: /run/secrets/tieout/webhooks/{{ $v.webhooks.secretsKey }}}
{{- end }}
{{- if has "pollers" .needs }}
- {name: TIEOUT_POLLERS_FILE, value: /run/secrets/tieout/pollers/{{ $v.pollers.fileKey }}}
{{- end }}
{{- if has "reconciliation" .needs }}
- {name: RECONCILIATION_ENABLED, value: {{ $v.reconciliation.enabled | quote }}}
- {name: RECONCILIATION_HOURLY_INTERVAL, value: {{ $v.reconciliation.hourlyIntervalMinutes | quote }}}
- {name: RECONCILIATION_DAILY_RUN_TIME, value: {{ $v.reconciliation.dailyRunTime | quote }}}
- {name: RECONCILIATION_AUTO_CORRECT_LOW_SEVERITY, value: {{ $v.reconciliation.autoCorrectLowSeverity | quote }}}
{{- if $v.reconciliation.correctionsSecret }}
- {name: TIEOUT_CORRECTIONS_FILE, value: /run/secrets/tieout/corrections/{{ $v.reconciliation.correctionsKey }}}
{{- end }}
{{- with $v.reconciliation.alertWebhookUrl }}
- {name: RECONCILIATION_ALERT_WEBHOOK_URL, value: {{ . | quote }}}
{{- end }}
{{- if $v.reconciliation.alertWebhookSecret }}
- {name: RECONCILIATION_ALERT_WEBHOOK_SECRET_FILE, value: /run/secrets/tieout/alert-webhook/{{ $v.reconciliation.alertWebhookKey }}}
{{- end }}
{{- if $v.reconciliation.dailyTokenSecret }}
- {name: RECONCILIATION_DAILY_TOKEN_FILE, value: /run/secrets/tieout/daily/{{ $v.reconciliation.dailyTokenKey }}}
{{- end }}
{{- end }}
{{- if has "pod" .needs }}
# Static membership: the name outlives a restart, so partitions stay where they are.
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: TIEOUT_GROUP_INSTANCE_ID, value: $(POD_NAME)}
- {name: TIEOUT_SINK_INSTANCE_ID, value: $(POD_NAME)}
{{- end }}
{{- range $name, $value := merge (deepCopy .config) $v.config }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- with $v.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Secrets of a workload, as files: pairs of folder and secret. */}}
{{- define "tieout.secrets" -}}
{{- $v := .root.Values -}}
{{- if and $v.tracing.endpoint $v.tracing.headersSecret }}
tracing: {{ $v.tracing.headersSecret }}
{{- end }}
{{- if has "kafka" .needs }}
{{- if hasPrefix "SASL" $v.kafka.securityProtocol }}
kafka: {{ required "kafka.passwordSecret is needed with a SASL protocol" $v.kafka.passwordSecret }}
{{- end }}
{{- with $v.kafka.caSecret }}
kafka-ca: {{ . }}
{{- end }}
{{- with $v.kafka.clientCertificateSecret }}
kafka-client: {{ . }}
{{- end }}
{{- end }}
{{- if has "database" .needs }}
database: {{ if .owner }}{{ $v.database.ownerUrlSecret | default $v.database.urlSecret }}{{ else }}{{ $v.database.urlSecret }}{{ end }}
{{- end }}
{{- if has "webhooks" .needs }}
{{- with $v.webhooks.secretsSecret }}
webhooks: {{ . }}
{{- end }}
{{- end }}
{{- if has "pollers" .needs }}
pollers: {{ $v.pollers.fileSecret }}
{{- end }}
{{- if has "reconciliation" .needs }}
{{- with $v.reconciliation.dailyTokenSecret }}
daily: {{ . }}
{{- end }}
{{- with $v.reconciliation.correctionsSecret }}
corrections: {{ . }}
{{- end }}
{{- with $v.reconciliation.alertWebhookSecret }}
alert-webhook: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tieout.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- range $folder, $secret := include "tieout.secrets" . | fromYaml }}
- {name: {{ $folder }}, mountPath: /run/secrets/tieout/{{ $folder }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "tieout.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- range $folder, $secret := include "tieout.secrets" . | fromYaml }}
- {name: {{ $folder }}, secret: {secretName: {{ $secret }}, defaultMode: 288}}
{{- end }}
{{- end }}
