ALTER TABLE checks ALTER COLUMN code DROP NOT NULL;

ALTER TABLE checks ADD COLUMN cause TEXT;

COMMENT ON COLUMN checks.cause IS 'why it is in error, or what failed it';

ALTER TABLE checks ADD COLUMN explained NUMERIC;

ALTER TABLE checks ADD COLUMN unexplained NUMERIC;

ALTER TABLE checks ADD COLUMN entries INTEGER;

ALTER TABLE checks ADD COLUMN entries_stated INTEGER;

ALTER TABLE checks ADD COLUMN period TEXT;

ALTER TABLE checks ADD COLUMN usage NUMERIC;

ALTER TABLE checks ADD COLUMN partial BOOLEAN;

COMMENT ON COLUMN checks.partial IS 'the period has no closing reading yet';

ALTER TABLE discrepancies ADD COLUMN cause TEXT;

COMMENT ON COLUMN discrepancies.cause IS 'which of a type''s causes it is, in the matcher''s words';

ALTER TABLE discrepancies ADD COLUMN explained NUMERIC;

ALTER TABLE discrepancies ADD COLUMN unexplained NUMERIC;

ALTER TABLE discrepancy_revisions ADD COLUMN cause TEXT;

ALTER TABLE discrepancy_revisions ADD COLUMN explained NUMERIC;

ALTER TABLE discrepancy_revisions ADD COLUMN unexplained NUMERIC;

ALTER TABLE items ADD COLUMN confidence TEXT;

COMMENT ON COLUMN items.confidence IS 'of records matched without a shared key, from 0 to 1';

ALTER TABLE items ADD COLUMN reasons JSONB;

ALTER TABLE item_revisions ADD COLUMN confidence TEXT;

ALTER TABLE item_revisions ADD COLUMN reasons JSONB;

CREATE OR REPLACE FUNCTION tieout_keep_item() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO item_revisions (id, log_offset, revision, log_partition, log_time, org, rule, pack, key, status, sides,
                                discrepancies, at, occurred_at, live, shadow, confidence, reasons)
    VALUES (OLD.id, OLD.log_offset, OLD.revision, OLD.log_partition, OLD.log_time, OLD.org, OLD.rule, OLD.pack, OLD.key,
            OLD.status, OLD.sides, OLD.discrepancies, OLD.at, OLD.occurred_at, OLD.live, OLD.shadow, OLD.confidence,
            OLD.reasons)
    ON CONFLICT DO NOTHING; RETURN NULL; END $$;
