CREATE TABLE feeds (
    org TEXT NOT NULL,
    source TEXT NOT NULL,
    log_partition INTEGER NOT NULL,
    rule TEXT NOT NULL,
    last_seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
    usual_silence_ms BIGINT,
    silent_after_ms BIGINT,
    silent_since TIMESTAMP WITH TIME ZONE,
    waiting INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    log_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT feeds_pkey PRIMARY KEY (org, source, log_partition)
);

COMMENT ON TABLE feeds IS 'how the feed of a source stands, as each partition of the matcher told it last';

COMMENT ON COLUMN feeds.waiting IS 'groups of the partition whose missing record is held back';

ALTER TABLE feeds ENABLE ROW LEVEL SECURITY;
ALTER TABLE feeds FORCE ROW LEVEL SECURITY;
CREATE POLICY by_org ON feeds
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');
