CREATE TABLE orgs (
    org TEXT NOT NULL,
    zone TEXT DEFAULT 'UTC' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT orgs_pkey PRIMARY KEY (org)
);

COMMENT ON COLUMN orgs.zone IS 'IANA zone in which its days begin and end';

CREATE TABLE sources (
    org TEXT NOT NULL,
    source TEXT NOT NULL,
    provider TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT sources_pkey PRIMARY KEY (org, source)
);

COMMENT ON COLUMN sources.provider IS 'webhook mapping; null for sources that post events';

CREATE TABLE api_keys (
    id TEXT NOT NULL,
    org TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id)
);

CREATE INDEX api_keys_org_created_at_idx ON api_keys (org, created_at);

COMMENT ON COLUMN api_keys.id IS 'public part of tk_<id>_<secret>';

COMMENT ON COLUMN api_keys.sha256 IS 'hex digest of the whole key; the key itself is nowhere';

CREATE TABLE discrepancies (
    id UUID NOT NULL,
    org TEXT NOT NULL,
    group_id UUID NOT NULL,
    revision INTEGER NOT NULL,
    state TEXT NOT NULL,
    status TEXT NOT NULL,
    rule TEXT NOT NULL,
    pack TEXT NOT NULL,
    type TEXT NOT NULL,
    severity TEXT NOT NULL,
    key JSONB NOT NULL,
    side TEXT,
    account TEXT,
    sides JSON NOT NULL,
    duplicate TEXT,
    expected TEXT,
    actual TEXT,
    difference NUMERIC,
    currency TEXT,
    raised_at TIMESTAMP WITH TIME ZONE NOT NULL,
    resolved_at TIMESTAMP WITH TIME ZONE,
    resolution TEXT,
    expired BOOLEAN NOT NULL,
    explanation TEXT NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    log_time TIMESTAMP WITH TIME ZONE NOT NULL,
    assignee TEXT,
    reason TEXT,
    accepted JSONB,
    reopened INTEGER DEFAULT '0' NOT NULL,
    status_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT discrepancies_pkey PRIMARY KEY (id)
);

CREATE INDEX discrepancies_open_idx ON discrepancies (org, status, raised_at) WHERE status <> 'resolved';

CREATE INDEX discrepancies_group_id_idx ON discrepancies (group_id);

CREATE INDEX discrepancies_org_raised_at_id_idx ON discrepancies (org, raised_at, id);

COMMENT ON COLUMN discrepancies.group_id IS 'name of org, rule and key: finds the item of the same group';

COMMENT ON COLUMN discrepancies.state IS 'raised or resolved: the matcher''s word';

COMMENT ON COLUMN discrepancies.status IS 'open, acknowledged or resolved: people''s word';

COMMENT ON COLUMN discrepancies.key IS 'a string for a key of one field, else a list';

COMMENT ON COLUMN discrepancies.expected IS 'as published: an amount, or the status or currency that differs';

COMMENT ON COLUMN discrepancies.difference IS 'actual - expected, exact; null where the two are no amounts';

COMMENT ON COLUMN discrepancies.raised_at IS 'first raise';

COMMENT ON COLUMN discrepancies.reason IS 'a person''s reason code, or the engine''s resolution';

COMMENT ON COLUMN discrepancies.accepted IS 'type, expected, actual, currency that a person resolved: others reopen it';

COMMENT ON COLUMN discrepancies.reopened IS 'how often it came back after a resolve';

COMMENT ON COLUMN discrepancies.status_at IS 'when status last changed';

COMMENT ON COLUMN discrepancies.stored_at IS 'when the sink first stored it';

CREATE TABLE discrepancy_revisions (
    id UUID NOT NULL,
    log_offset BIGINT NOT NULL,
    revision INTEGER NOT NULL,
    log_partition INTEGER NOT NULL,
    log_time TIMESTAMP WITH TIME ZONE NOT NULL,
    org TEXT NOT NULL,
    rule TEXT NOT NULL,
    state TEXT NOT NULL,
    type TEXT NOT NULL,
    severity TEXT NOT NULL,
    expected TEXT,
    actual TEXT,
    difference NUMERIC,
    currency TEXT,
    raised_at TIMESTAMP WITH TIME ZONE NOT NULL,
    resolved_at TIMESTAMP WITH TIME ZONE,
    resolution TEXT,
    expired BOOLEAN NOT NULL,
    explanation TEXT NOT NULL,
    sides JSON NOT NULL,
    CONSTRAINT discrepancy_revisions_pkey PRIMARY KEY (id, log_offset, revision)
);

COMMENT ON TABLE discrepancy_revisions IS 'every revision as it was stored; append-only';

CREATE TABLE items (
    id UUID NOT NULL,
    org TEXT NOT NULL,
    group_id UUID NOT NULL,
    revision INTEGER NOT NULL,
    status TEXT NOT NULL,
    rule TEXT NOT NULL,
    pack TEXT NOT NULL,
    key JSONB NOT NULL,
    sides JSON NOT NULL,
    discrepancies JSONB NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    occurred_at TIMESTAMP WITH TIME ZONE,
    live BOOLEAN NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    log_time TIMESTAMP WITH TIME ZONE NOT NULL,
    reopened_offset BIGINT,
    CONSTRAINT items_pkey PRIMARY KEY (id)
);

CREATE INDEX items_org_pack_occurred_at_idx ON items (org, pack, occurred_at);

CREATE INDEX items_org_pack_log_time_idx ON items (org, pack, log_time);

CREATE INDEX items_group_id_idx ON items (group_id);

COMMENT ON COLUMN items.status IS 'pending, matched or discrepant';

COMMENT ON COLUMN items.occurred_at IS 'decides the period it belongs to';

COMMENT ON COLUMN items.reopened_offset IS 'log offset from which the matcher repeats records of this settled item; its repeats are not stored';

CREATE TABLE item_revisions (
    id UUID NOT NULL,
    log_offset BIGINT NOT NULL,
    revision INTEGER NOT NULL,
    log_partition INTEGER NOT NULL,
    log_time TIMESTAMP WITH TIME ZONE NOT NULL,
    org TEXT NOT NULL,
    rule TEXT NOT NULL,
    pack TEXT NOT NULL,
    key JSONB NOT NULL,
    status TEXT NOT NULL,
    sides JSON NOT NULL,
    discrepancies JSONB NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    occurred_at TIMESTAMP WITH TIME ZONE,
    live BOOLEAN NOT NULL,
    CONSTRAINT item_revisions_pkey PRIMARY KEY (id, log_offset, revision)
);

COMMENT ON TABLE item_revisions IS 'earlier revisions of items, the present ones stand in items; append-only; a report asks what was at a log time';

CREATE TABLE item_records (
    record_id UUID NOT NULL,
    item_id UUID NOT NULL,
    group_id UUID NOT NULL,
    org TEXT NOT NULL,
    live BOOLEAN NOT NULL,
    CONSTRAINT item_records_pkey PRIMARY KEY (record_id, item_id)
);

COMMENT ON TABLE item_records IS 'which items hold a record: one that is live under two keys of a rule has moved';

COMMENT ON COLUMN item_records.record_id IS 'name of org, rule, source and record';

CREATE TABLE checks (
    id UUID NOT NULL,
    org TEXT NOT NULL,
    rule TEXT NOT NULL,
    pack TEXT NOT NULL,
    key JSONB NOT NULL,
    code TEXT NOT NULL,
    result TEXT NOT NULL,
    currency TEXT,
    as_of TIMESTAMP WITH TIME ZONE NOT NULL,
    expected TEXT,
    actual TEXT,
    difference NUMERIC,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    log_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT checks_pkey PRIMARY KEY (id)
);

CREATE INDEX checks_org_rule_as_of_idx ON checks (org, rule, as_of);

COMMENT ON COLUMN checks.id IS 'name of the topic record, so that a rebuild stores it once';

CREATE TABLE action_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    org TEXT NOT NULL,
    discrepancy_id UUID NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    from_status TEXT NOT NULL,
    to_status TEXT NOT NULL,
    assignee TEXT,
    reason TEXT,
    notes TEXT,
    revision INTEGER NOT NULL,
    CONSTRAINT action_log_pkey PRIMARY KEY (id)
);

CREATE INDEX action_log_discrepancy_id_id_idx ON action_log (discrepancy_id, id);

COMMENT ON TABLE action_log IS 'who did what, when and why; the database refuses UPDATE, DELETE and TRUNCATE';

COMMENT ON COLUMN action_log.actor IS '`key:<name>` of a person''s API key, or `engine`';

COMMENT ON COLUMN action_log.revision IS 'of the discrepancy when the action was taken';

CREATE TABLE adjustments (
    id UUID NOT NULL,
    org TEXT NOT NULL,
    discrepancy_id UUID NOT NULL,
    source TEXT NOT NULL,
    amount NUMERIC NOT NULL,
    currency TEXT NOT NULL,
    reason TEXT NOT NULL,
    notes TEXT,
    posted_by TEXT NOT NULL,
    event JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT adjustments_pkey PRIMARY KEY (id)
);

CREATE INDEX adjustments_discrepancy_id_idx ON adjustments (discrepancy_id);

COMMENT ON TABLE adjustments IS 'corrections: new entries that name their discrepancy; ledger rows are never touched; append-only';

COMMENT ON COLUMN adjustments.amount IS 'signed: added to the side of its source';

COMMENT ON COLUMN adjustments.event IS 'the event as it was posted to the topic inbox';

CREATE TABLE sink_offsets (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next_offset BIGINT NOT NULL,
    live_offset BIGINT DEFAULT '0' NOT NULL,
    CONSTRAINT sink_offsets_pkey PRIMARY KEY (topic, partition)
);

COMMENT ON TABLE sink_offsets IS 'where the sink goes on; moved only by the transaction that stored what lies before';

COMMENT ON COLUMN sink_offsets.live_offset IS 'below it: a rebuild, no webhooks';

CREATE TABLE progress (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    log_time TIMESTAMP WITH TIME ZONE NOT NULL,
    log_offset BIGINT NOT NULL,
    CONSTRAINT progress_pkey PRIMARY KEY (topic, partition)
);

COMMENT ON TABLE progress IS 'log time up to which everything of a partition is stored; topic without prefix';

CREATE TABLE topic_outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    org TEXT NOT NULL,
    topic TEXT NOT NULL,
    key BYTEA NOT NULL,
    value BYTEA,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT topic_outbox_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE topic_outbox IS 'records for Kafka, written with the rows they tell about; deleted once Kafka has acknowledged them';

COMMENT ON COLUMN topic_outbox.topic IS 'without prefix: directory or inbox';

CREATE TABLE runs (
    id UUID NOT NULL,
    org TEXT NOT NULL,
    pack TEXT NOT NULL,
    period_start TIMESTAMP WITH TIME ZONE NOT NULL,
    period_end TIMESTAMP WITH TIME ZONE NOT NULL,
    zone TEXT NOT NULL,
    trigger TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    status TEXT NOT NULL,
    provisional BOOLEAN NOT NULL,
    summary JSON,
    report_json JSON,
    report_markdown TEXT,
    error TEXT,
    cut_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    completed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT runs_pkey PRIMARY KEY (id),
    CONSTRAINT runs_org_pack_period_start_period_end_key UNIQUE (org, pack, period_start, period_end)
);

CREATE INDEX runs_org_created_at_idx ON runs (org, created_at);

COMMENT ON COLUMN runs.trigger IS 'manual, daily or schedule';

COMMENT ON COLUMN runs.status IS 'running, completed, incomplete or failed';

COMMENT ON COLUMN runs.report_json IS 'in the order of the report: rules, sides';

COMMENT ON COLUMN runs.cut_at IS 'time in the log at which the matcher was asked for what is still pending';

CREATE TABLE not_reconciled (
    org TEXT NOT NULL,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    type TEXT NOT NULL,
    occurred_at TIMESTAMP WITH TIME ZONE NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT not_reconciled_pkey PRIMARY KEY (org, event_id)
);

CREATE INDEX not_reconciled_org_occurred_at_idx ON not_reconciled (org, occurred_at);

COMMENT ON TABLE not_reconciled IS 'events that no rule selected when ingest read them; a rule that comes or goes later changes none';

COMMENT ON COLUMN not_reconciled.event_id IS 'of the event; ingest may tell it twice, it counts once';

COMMENT ON COLUMN not_reconciled.occurred_at IS 'decides the period it counts in';

CREATE TABLE dead_letters (
    id UUID NOT NULL,
    org TEXT,
    source TEXT,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    hint TEXT NOT NULL,
    rule TEXT,
    event TEXT,
    inbox_partition INTEGER NOT NULL,
    inbox_offset BIGINT NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    raw BYTEA NOT NULL,
    raw_bytes INTEGER NOT NULL,
    first_seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
    state TEXT DEFAULT 'open' NOT NULL,
    state_by TEXT,
    state_reason TEXT,
    state_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT dead_letters_pkey PRIMARY KEY (id)
);

CREATE INDEX dead_letters_org_received_at_id_idx ON dead_letters (org, received_at, id);

CREATE INDEX dead_letters_open_idx ON dead_letters (reason) WHERE state = 'open';

COMMENT ON COLUMN dead_letters.id IS 'of the letter: it is stored once, however often it arrives';

COMMENT ON COLUMN dead_letters.org IS 'null: nobody could tell whose it is; only the scope of all organisations sees it';

COMMENT ON COLUMN dead_letters.hint IS 'what to do';

COMMENT ON COLUMN dead_letters.event IS 'the source''s id of the event';

COMMENT ON COLUMN dead_letters.inbox_partition IS '-1: it came from no record of inbox';

COMMENT ON COLUMN dead_letters.raw IS 'the first 64 KiB of the request or row as it came';

COMMENT ON COLUMN dead_letters.raw_bytes IS 'its whole size';

COMMENT ON COLUMN dead_letters.first_seen_at IS 'when alerts first stored it';

COMMENT ON COLUMN dead_letters.state IS 'open, replayed or dismissed: people''s word';

CREATE TABLE dead_letter_changes (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    org TEXT NOT NULL,
    dead_letter_id UUID NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    from_state TEXT NOT NULL,
    to_state TEXT NOT NULL,
    reason TEXT,
    CONSTRAINT dead_letter_changes_pkey PRIMARY KEY (id)
);

CREATE INDEX dead_letter_changes_dead_letter_id_id_idx ON dead_letter_changes (dead_letter_id, id);

COMMENT ON TABLE dead_letter_changes IS 'who did what with a dead letter, when and why; append-only';

CREATE TABLE webhook_endpoints (
    id UUID NOT NULL,
    org TEXT NOT NULL,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    previous_secret TEXT,
    previous_until TIMESTAMP WITH TIME ZONE,
    types TEXT[] DEFAULT '{}' NOT NULL,
    severity_min TEXT DEFAULT 'low' NOT NULL,
    description TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    disabled_at TIMESTAMP WITH TIME ZONE,
    disabled_reason TEXT,
    CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (id)
);

CREATE INDEX webhook_endpoints_org_idx ON webhook_endpoints (org);

COMMENT ON COLUMN webhook_endpoints.secret IS 'signing secret; only the app role reads it, no API shows it again';

COMMENT ON COLUMN webhook_endpoints.previous_secret IS 'also signs until previous_until, so that receivers can change over';

COMMENT ON COLUMN webhook_endpoints.types IS 'discrepancy types; empty: all';

CREATE TABLE outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    org TEXT NOT NULL,
    endpoint_id UUID NOT NULL,
    kind TEXT DEFAULT 'discrepancy' NOT NULL,
    discrepancy_id UUID,
    revision INTEGER,
    log_offset BIGINT,
    message_id TEXT NOT NULL,
    type TEXT NOT NULL,
    severity TEXT NOT NULL,
    payload TEXT NOT NULL,
    traceparent TEXT,
    state TEXT DEFAULT 'pending' NOT NULL,
    reason TEXT,
    replayed_at TIMESTAMP WITH TIME ZONE,
    attempts INTEGER DEFAULT '0' NOT NULL,
    next_attempt_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    claimed_until TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT outbox_pkey PRIMARY KEY (id),
    CONSTRAINT outbox_endpoint_id_discrepancy_id_log_offset_revision_key UNIQUE (endpoint_id, discrepancy_id, log_offset, revision)
);

CREATE INDEX outbox_endpoint_id_created_at_idx ON outbox (endpoint_id, created_at);

CREATE INDEX outbox_org_id_idx ON outbox (org, id);

CREATE INDEX outbox_due_idx ON outbox (endpoint_id, next_attempt_at) WHERE state = 'pending';

COMMENT ON TABLE outbox IS 'messages to outgoing webhooks, written in the transaction that stored the revision they tell about';

COMMENT ON COLUMN outbox.kind IS 'discrepancy, storm or test';

COMMENT ON COLUMN outbox.message_id IS 'webhook-id: the same in every attempt';

COMMENT ON COLUMN outbox.type IS 'event type in the payload, such as discrepancy.raised';

COMMENT ON COLUMN outbox.payload IS 'the JSON that is signed and sent, byte for byte';

COMMENT ON COLUMN outbox.state IS 'pending, delivered, failed or dropped';

COMMENT ON COLUMN outbox.reason IS 'why it failed or was dropped';

COMMENT ON COLUMN outbox.replayed_at IS 'somebody asked for it again: sent whatever came after it, and past any cap';

COMMENT ON COLUMN outbox.claimed_until IS 'a dispatcher works on it until then';

CREATE TABLE delivery_attempts (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    outbox_id BIGINT NOT NULL,
    org TEXT NOT NULL,
    endpoint_id UUID NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    attempt INTEGER NOT NULL,
    status_code INTEGER,
    error TEXT,
    duration_ms INTEGER NOT NULL,
    CONSTRAINT delivery_attempts_pkey PRIMARY KEY (id)
);

CREATE INDEX delivery_attempts_outbox_id_id_idx ON delivery_attempts (outbox_id, id);
