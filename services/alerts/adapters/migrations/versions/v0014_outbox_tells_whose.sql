-- The dispatcher is told for which endpoints there is something, so that it need not look for them.
DROP TRIGGER outbox_grew ON outbox;

CREATE OR REPLACE FUNCTION tieout_outbox_grew() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_notify('tieout_outbox', whose.endpoint_id::text) FROM (SELECT DISTINCT endpoint_id FROM stored) AS whose; RETURN NULL; END $$;

CREATE TRIGGER outbox_grew AFTER INSERT ON outbox REFERENCING NEW TABLE AS stored
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_outbox_grew();
