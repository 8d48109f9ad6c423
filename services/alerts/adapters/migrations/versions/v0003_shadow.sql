ALTER TABLE discrepancies ADD COLUMN shadow BOOLEAN DEFAULT 'false' NOT NULL;

COMMENT ON COLUMN discrepancies.shadow IS 'from a rule that only watches: no alert, no report';

ALTER TABLE discrepancy_revisions ADD COLUMN shadow BOOLEAN DEFAULT 'false' NOT NULL;

ALTER TABLE items ADD COLUMN shadow BOOLEAN DEFAULT 'false' NOT NULL;

COMMENT ON COLUMN items.shadow IS 'from a rule that only watches: no alert, no report';

ALTER TABLE item_revisions ADD COLUMN shadow BOOLEAN DEFAULT 'false' NOT NULL;

ALTER TABLE checks ADD COLUMN shadow BOOLEAN DEFAULT 'false' NOT NULL;

CREATE OR REPLACE FUNCTION tieout_keep_item() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO item_revisions (id, log_offset, revision, log_partition, log_time, org, rule, pack, key, status, sides,
                                discrepancies, at, occurred_at, live, shadow)
    VALUES (OLD.id, OLD.log_offset, OLD.revision, OLD.log_partition, OLD.log_time, OLD.org, OLD.rule, OLD.pack, OLD.key,
            OLD.status, OLD.sides, OLD.discrepancies, OLD.at, OLD.occurred_at, OLD.live, OLD.shadow)
    ON CONFLICT DO NOTHING; RETURN NULL; END $$;

-- Who reads the pack's own names expects what counts.
CREATE OR REPLACE VIEW "ReconciliationDiscrepancy" WITH (security_invoker = true) AS
    SELECT id, org AS "orgId", type, status, state, severity, rule, key, side, sides, expected, actual, difference,
           currency, assignee, reason, resolution, explanation, raised_at AS "raisedAt", resolved_at AS "resolvedAt",
           revision, status_at AS "updatedAt"
    FROM discrepancies WHERE pack = 'billing' AND NOT shadow;
CREATE OR REPLACE VIEW "ReconciliationItem" WITH (security_invoker = true) AS
    SELECT id, org AS "orgId", status, rule, key, sides, discrepancies, occurred_at AS "occurredAt", at AS "matchedAt",
           live, revision
    FROM items WHERE pack = 'billing' AND NOT shadow;
