CREATE TABLE discrepancy_news (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    org TEXT NOT NULL,
    discrepancy_id UUID NOT NULL,
    CONSTRAINT discrepancy_news_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE discrepancy_news IS 'discrepancies that changed since the explainer looked; written by triggers, deleted once it has looked';

CREATE TABLE loose_ends (
    discrepancy_id UUID NOT NULL,
    org TEXT NOT NULL,
    pack TEXT NOT NULL,
    rule TEXT NOT NULL,
    has TEXT NOT NULL,
    lacks TEXT,
    seeks TEXT[] NOT NULL,
    source TEXT NOT NULL,
    record TEXT NOT NULL,
    key JSONB NOT NULL,
    signature TEXT NOT NULL,
    amount NUMERIC NOT NULL,
    digits TEXT NOT NULL,
    size INTEGER NOT NULL,
    currency TEXT NOT NULL,
    account TEXT,
    occurred_at TIMESTAMP WITH TIME ZONE NOT NULL,
    pair_id UUID,
    rank JSONB,
    alone BOOLEAN,
    near_miss JSONB,
    CONSTRAINT loose_ends_pkey PRIMARY KEY (discrepancy_id)
);

CREATE INDEX loose_ends_digits_idx ON loose_ends (digits, org, pack, has, currency, occurred_at);

CREATE INDEX loose_ends_size_idx ON loose_ends (size, org, pack, has, currency);

CREATE INDEX loose_ends_signature_idx ON loose_ends (signature, org, pack, has);

COMMENT ON TABLE loose_ends IS 'open discrepancies whose record has nothing opposite, and their near misses; made anew from discrepancies';

COMMENT ON COLUMN loose_ends.has IS 'side on which its record stands';

COMMENT ON COLUMN loose_ends.lacks IS 'side on which a record is missing; null: its record is one too many';

COMMENT ON COLUMN loose_ends.seeks IS 'sides on which the same money may stand';

COMMENT ON COLUMN loose_ends.signature IS 'of the key: equal where it is only written differently';

COMMENT ON COLUMN loose_ends.digits IS 'the amount in its shortest form: equal for equal amounts';

COMMENT ON COLUMN loose_ends.size IS 'magnitude and first two digits of the amount without its sign';

COMMENT ON COLUMN loose_ends.currency IS 'empty where the record has none';

COMMENT ON COLUMN loose_ends.pair_id IS 'the loose end that it is paired with';

COMMENT ON COLUMN loose_ends.rank IS 'orders pairs, the best first; the same on both';

COMMENT ON COLUMN loose_ends.alone IS 'paired only while nothing else of the amount is open nearby';

COMMENT ON COLUMN loose_ends.near_miss IS 'what is said about it';

CREATE TABLE clusters (
    id UUID NOT NULL,
    org TEXT NOT NULL,
    cause TEXT NOT NULL,
    sentence TEXT NOT NULL,
    size INTEGER NOT NULL,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT clusters_pkey PRIMARY KEY (id)
);

CREATE INDEX clusters_org_cause_idx ON clusters (org, cause);

COMMENT ON TABLE clusters IS 'open discrepancies that share a cause; made anew from discrepancies';

CREATE TABLE cluster_members (
    discrepancy_id UUID NOT NULL,
    org TEXT NOT NULL,
    cause TEXT NOT NULL,
    raised_at TIMESTAMP WITH TIME ZONE NOT NULL,
    open BOOLEAN NOT NULL,
    difference TEXT NOT NULL,
    cluster_id UUID,
    CONSTRAINT cluster_members_pkey PRIMARY KEY (discrepancy_id)
);

CREATE INDEX cluster_members_org_cause_raised_at_idx ON cluster_members (org, cause, raised_at);

CREATE INDEX cluster_members_org_cluster_id_idx ON cluster_members (org, cluster_id);

COMMENT ON TABLE cluster_members IS 'the cause of every open discrepancy, and of those that closed while others of their cluster are open';

-- Every change of a discrepancy is looked at again, whoever made it: the sink, or a person who resolves one.
CREATE FUNCTION tieout_discrepancies_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO discrepancy_news (org, discrepancy_id) SELECT org, id FROM changed; RETURN NULL; END $$;

CREATE TRIGGER explain_new AFTER INSERT ON discrepancies REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_discrepancies_changed();

CREATE TRIGGER explain_changed AFTER UPDATE ON discrepancies REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_discrepancies_changed();

-- What was stored before is looked at as well.
INSERT INTO discrepancy_news (org, discrepancy_id)
    SELECT org, id FROM discrepancies WHERE state = 'raised' ORDER BY raised_at, id;

ALTER TABLE discrepancy_news ENABLE ROW LEVEL SECURITY;
ALTER TABLE discrepancy_news FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON discrepancy_news
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE loose_ends ENABLE ROW LEVEL SECURITY;
ALTER TABLE loose_ends FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON loose_ends
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE clusters ENABLE ROW LEVEL SECURITY;
ALTER TABLE clusters FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON clusters
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE cluster_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE cluster_members FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON cluster_members
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

