CREATE TABLE run_requests (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    org TEXT NOT NULL,
    run_id UUID NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    CONSTRAINT run_requests_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE run_requests IS 'who asked for a run over MCP, when and why; append-only';

CREATE INDEX run_requests_run_id_id_idx ON run_requests (run_id, id);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON run_requests
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

ALTER TABLE run_requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE run_requests FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON run_requests
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');
