-- Every row belongs to one organisation. A transaction names the one it works for in `tieout.org`; unset: no row is
-- seen or written. '*' is no possible name of an organisation: sink, dispatcher and scheduler work across all of them.
-- The sub-selects are evaluated once per statement, not once per row.

ALTER TABLE orgs ENABLE ROW LEVEL SECURITY;
ALTER TABLE orgs FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON orgs
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE sources ENABLE ROW LEVEL SECURITY;
ALTER TABLE sources FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON sources
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON api_keys
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE discrepancies ENABLE ROW LEVEL SECURITY;
ALTER TABLE discrepancies FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON discrepancies
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE discrepancy_revisions ENABLE ROW LEVEL SECURITY;
ALTER TABLE discrepancy_revisions FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON discrepancy_revisions
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE items ENABLE ROW LEVEL SECURITY;
ALTER TABLE items FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON items
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE item_revisions ENABLE ROW LEVEL SECURITY;
ALTER TABLE item_revisions FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON item_revisions
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE item_records ENABLE ROW LEVEL SECURITY;
ALTER TABLE item_records FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON item_records
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE checks ENABLE ROW LEVEL SECURITY;
ALTER TABLE checks FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON checks
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE action_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE action_log FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON action_log
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE adjustments ENABLE ROW LEVEL SECURITY;
ALTER TABLE adjustments FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON adjustments
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE topic_outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE topic_outbox FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON topic_outbox
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE runs FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON runs
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE not_reconciled ENABLE ROW LEVEL SECURITY;
ALTER TABLE not_reconciled FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON not_reconciled
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

-- A letter without an organisation (org is null) equals no setting: only '*' sees it.
ALTER TABLE dead_letters ENABLE ROW LEVEL SECURITY;
ALTER TABLE dead_letters FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON dead_letters
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE dead_letter_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE dead_letter_changes FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON dead_letter_changes
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE webhook_endpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_endpoints FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON webhook_endpoints
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON outbox
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE delivery_attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE delivery_attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON delivery_attempts
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

-- History is added to and never changed, whoever asks.
CREATE FUNCTION tieout_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation'; END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON discrepancy_revisions
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON item_revisions
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dead_letter_changes
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON action_log
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON adjustments
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

-- What an item was is kept when it changes, whoever changes it: a report asks what stood at a point of log time. The
-- present revision stands in items alone.
CREATE FUNCTION tieout_keep_item() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO item_revisions (id, log_offset, revision, log_partition, log_time, org, rule, pack, key, status, sides,
                                discrepancies, at, occurred_at, live)
    VALUES (OLD.id, OLD.log_offset, OLD.revision, OLD.log_partition, OLD.log_time, OLD.org, OLD.rule, OLD.pack, OLD.key,
            OLD.status, OLD.sides, OLD.discrepancies, OLD.at, OLD.occurred_at, OLD.live)
    ON CONFLICT DO NOTHING; RETURN NULL; END $$;

CREATE TRIGGER kept AFTER UPDATE ON items FOR EACH ROW
    WHEN ((OLD.log_offset, OLD.revision) IS DISTINCT FROM (NEW.log_offset, NEW.revision))
    EXECUTE FUNCTION tieout_keep_item();

-- Its present revision would be lost.
CREATE TRIGGER kept_whole BEFORE DELETE OR TRUNCATE ON items
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

-- New messages are sent at once: the dispatcher listens, and polls only for what fell due.
CREATE FUNCTION tieout_outbox_grew() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_notify('tieout_outbox', ''); RETURN NULL; END $$;

CREATE TRIGGER outbox_grew AFTER INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_outbox_grew();

-- The billing pack's own names over the one store; row-level security applies to whoever reads them.
CREATE VIEW "ReconciliationDiscrepancy" WITH (security_invoker = true) AS
    SELECT id, org AS "orgId", type, status, state, severity, rule, key, side, sides, expected, actual, difference,
           currency, assignee, reason, resolution, explanation, raised_at AS "raisedAt", resolved_at AS "resolvedAt",
           revision, status_at AS "updatedAt"
    FROM discrepancies WHERE pack = 'billing';
CREATE VIEW "ReconciliationItem" WITH (security_invoker = true) AS
    SELECT id, org AS "orgId", status, rule, key, sides, discrepancies, occurred_at AS "occurredAt", at AS "matchedAt",
           live, revision
    FROM items WHERE pack = 'billing';
CREATE VIEW "ReconciliationRun" WITH (security_invoker = true) AS
    SELECT id, org AS "orgId", period_start AS "periodStart", period_end AS "periodEnd", zone, trigger, status,
           provisional, summary, report_json AS "reportJson", report_markdown AS "reportMarkdown",
           created_at AS "createdAt", completed_at AS "completedAt"
    FROM runs WHERE pack = 'billing';
CREATE VIEW "ReconciliationActionLog" WITH (security_invoker = true) AS
    SELECT l.id, l.org AS "orgId", l.discrepancy_id AS "discrepancyId", l.actor, l.action, l.from_status AS "fromStatus",
           l.to_status AS "toStatus", l.assignee, l.reason, l.notes, l.at AS "createdAt"
    FROM action_log l JOIN discrepancies d ON d.id = l.discrepancy_id WHERE d.pack = 'billing';
