CREATE TABLE drift_hours (
    org TEXT NOT NULL,
    rule TEXT NOT NULL,
    account TEXT NOT NULL,
    currency TEXT NOT NULL,
    hour TIMESTAMP WITH TIME ZONE NOT NULL,
    pack TEXT NOT NULL,
    value NUMERIC NOT NULL,
    CONSTRAINT drift_hours_pkey PRIMARY KEY (org, rule, account, currency, hour)
);

COMMENT ON TABLE drift_hours IS 'the last reading of each hour, of the last eight weeks: what anomalies are found in; made anew from checks and runs';

COMMENT ON COLUMN drift_hours.account IS 'empty: the hourly discrepancy of a check as a whole';

COMMENT ON COLUMN drift_hours.currency IS 'empty: a count';

CREATE TABLE baselines (
    org TEXT NOT NULL,
    rule TEXT NOT NULL,
    account TEXT NOT NULL,
    currency TEXT NOT NULL,
    pack TEXT NOT NULL,
    state TEXT NOT NULL,
    points INTEGER NOT NULL,
    last_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expected TEXT,
    seen TEXT NOT NULL,
    usual_width TEXT,
    tolerance TEXT,
    critical TEXT,
    sentence TEXT NOT NULL,
    looked_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT baselines_pkey PRIMARY KEY (org, rule, account, currency)
);

COMMENT ON TABLE baselines IS 'how each series stood when it was looked at last';

COMMENT ON COLUMN baselines.state IS 'learning or watched';

CREATE TABLE anomalies (
    id UUID NOT NULL,
    org TEXT NOT NULL,
    rule TEXT NOT NULL,
    account TEXT NOT NULL,
    currency TEXT NOT NULL,
    family TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    raised_at TIMESTAMP WITH TIME ZONE NOT NULL,
    closed_at TIMESTAMP WITH TIME ZONE,
    body JSONB NOT NULL,
    CONSTRAINT anomalies_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE anomalies IS 'drifts beside the usual, and those that lead to a breach, each with its sentence';

COMMENT ON COLUMN anomalies.family IS 'level or trend: of a series one of each may be open';

COMMENT ON COLUMN anomalies.body IS 'as API and webhooks show it';

CREATE INDEX anomalies_org_raised_at_id_idx ON anomalies (org, raised_at, id);

CREATE UNIQUE INDEX anomalies_open_idx ON anomalies (org, rule, account, currency, family) WHERE state = 'open';

ALTER TABLE drift_hours ENABLE ROW LEVEL SECURITY;

ALTER TABLE drift_hours FORCE ROW LEVEL SECURITY;

CREATE POLICY by_org ON drift_hours
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE baselines ENABLE ROW LEVEL SECURITY;

ALTER TABLE baselines FORCE ROW LEVEL SECURITY;

CREATE POLICY by_org ON baselines
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE anomalies ENABLE ROW LEVEL SECURITY;

ALTER TABLE anomalies FORCE ROW LEVEL SECURITY;

CREATE POLICY by_org ON anomalies
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');
