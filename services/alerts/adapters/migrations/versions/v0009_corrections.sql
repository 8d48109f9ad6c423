CREATE TABLE corrections (
    id UUID NOT NULL,
    org TEXT NOT NULL,
    discrepancy_id UUID NOT NULL,
    number INTEGER NOT NULL,
    episode INTEGER NOT NULL,
    rule TEXT NOT NULL,
    pack TEXT NOT NULL,
    action TEXT NOT NULL,
    source TEXT NOT NULL,
    account TEXT,
    key JSONB NOT NULL,
    currency TEXT,
    difference NUMERIC,
    requested_at TIMESTAMP WITH TIME ZONE NOT NULL,
    validate_by TIMESTAMP WITH TIME ZONE NOT NULL,
    state TEXT NOT NULL,
    read_as_of TIMESTAMP WITH TIME ZONE,
    body JSONB,
    outcome TEXT,
    detail TEXT,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT corrections_pkey PRIMARY KEY (id),
    CONSTRAINT corrections_discrepancy_id_number_key UNIQUE (discrepancy_id, number)
);

COMMENT ON TABLE corrections IS 'what auto-correction tried, and what became of it; each step also stands in action_log';

COMMENT ON COLUMN corrections.id IS 'the idempotency key at the ledger';

COMMENT ON COLUMN corrections.episode IS 'how often the discrepancy had come back: each time it may be tried anew';

COMMENT ON COLUMN corrections.source IS 'whose provider was asked again, or which ledger was asked to book';

COMMENT ON COLUMN corrections.difference IS 'when it was tried; an adjustment adds just this';

COMMENT ON COLUMN corrections.state IS 'begun, waiting, succeeded or failed';

COMMENT ON COLUMN corrections.read_as_of IS 'the newest reading when it was tried: only a newer one says something new';

COMMENT ON COLUMN corrections.body IS 'what was posted to the ledger';

CREATE INDEX corrections_org_requested_at_id_idx ON corrections (org, requested_at, id);

CREATE INDEX corrections_unfinished_idx ON corrections (requested_at) WHERE finished_at IS NULL;

CREATE INDEX corrections_finished_at_idx ON corrections (finished_at) WHERE finished_at IS NOT NULL;

ALTER TABLE corrections ENABLE ROW LEVEL SECURITY;

ALTER TABLE corrections FORCE ROW LEVEL SECURITY;

CREATE POLICY by_org ON corrections
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');
