ALTER TABLE runs ADD COLUMN run_type TEXT;

UPDATE runs SET run_type = CASE
    WHEN (period_end AT TIME ZONE zone)::date - (period_start AT TIME ZONE zone)::date = 1 THEN 'daily' ELSE 'period' END;

ALTER TABLE runs ALTER COLUMN run_type SET NOT NULL;

COMMENT ON COLUMN runs.run_type IS 'hourly, daily (one day, whoever asked), period (other days) or manual (now)';

ALTER TABLE runs ADD COLUMN expects JSONB;

COMMENT ON COLUMN runs.expects IS 'rules in force when it was made, by name, with their kind: what nothing was stored of is a check too';

ALTER TABLE runs ADD COLUMN duration_ms INTEGER;

COMMENT ON COLUMN runs.duration_ms IS 'of its last computing';

ALTER TABLE runs ADD COLUMN counted_at TIMESTAMP WITH TIME ZONE;

COMMENT ON COLUMN runs.counted_at IS 'when everything of the period was stored and its checks were counted in the metrics';

ALTER TABLE runs DROP CONSTRAINT runs_org_pack_period_start_period_end_key;

ALTER TABLE runs ADD CONSTRAINT runs_org_pack_period_start_period_end_run_type_key
    UNIQUE (org, pack, period_start, period_end, run_type);

-- The scheduler looks every few seconds.
CREATE INDEX runs_unfinished_idx ON runs (updated_at) WHERE completed_at IS NULL;

CREATE INDEX runs_counted_at_idx ON runs (counted_at) WHERE counted_at IS NOT NULL;

-- The stack pack's own names over the one store, of every pack; row-level security applies to whoever reads them.
CREATE VIEW reconciliation_reports WITH (security_invoker = true) AS
    SELECT id, org, pack, run_type,
           CASE WHEN status = 'running' AND report_json IS NOT NULL THEN 'provisional' ELSE status END AS status,
           period_start, period_end, zone, requested_by,
           (summary -> 'checks_total')::text::integer AS checks_total,
           (summary -> 'checks_passed')::text::integer AS checks_passed,
           (summary -> 'checks_failed')::text::integer AS checks_failed,
           report_json AS report, duration_ms, error, created_at, updated_at, completed_at
    FROM runs;
CREATE VIEW reconciliation_checks WITH (security_invoker = true) AS
    SELECT md5(r.id::text || '/' || (c ->> 'check_type'))::uuid AS id, r.id AS report_id, r.org, r.pack, r.run_type,
           c ->> 'check_type' AS check_type, (c ->> 'passed')::boolean AS passed, c ->> 'outcome' AS outcome,
           c -> 'rules' AS rules, (c ->> 'readings')::integer AS readings, (c ->> 'failed')::integer AS failed,
           (c ->> 'errors')::integer AS errors, (c ->> 'items')::integer AS items,
           (c ->> 'discrepant')::integer AS discrepant, c -> 'discrepancy' AS discrepancy, c ->> 'error' AS error,
           r.created_at
    FROM runs r CROSS JOIN LATERAL json_array_elements(r.summary -> 'checks') AS c;
CREATE VIEW reconciliation_exceptions WITH (security_invoker = true) AS
    SELECT d.id, d.org, d.pack, split_part(d.rule, '.', 2) AS check_type, d.rule, d.type,
           d.severity, d.status, d.account, d.key, d.currency, d.expected, d.actual, d.difference,
           d.explanation AS description, d.raised_at AS created_at,
           CASE WHEN d.status = 'resolved' THEN COALESCE(d.resolved_at, d.status_at) END AS resolved_at,
           CASE WHEN d.status = 'resolved' THEN l.actor END AS resolved_by,
           CASE WHEN d.status = 'resolved' THEN COALESCE(l.reason, d.resolution) END AS resolution,
           CASE WHEN d.status = 'resolved' THEN l.notes END AS notes
    FROM discrepancies d
    LEFT JOIN LATERAL (
        SELECT a.actor, a.reason, a.notes FROM action_log a
        WHERE a.discrepancy_id = d.id AND a.to_status = 'resolved' AND a.from_status <> 'resolved'
        ORDER BY a.id DESC LIMIT 1
    ) l ON d.status = 'resolved'
    WHERE NOT d.shadow;
