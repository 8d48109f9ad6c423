CREATE INDEX cluster_members_open_idx ON cluster_members (org, cause, raised_at) WHERE open;

COMMENT ON TABLE cluster_members IS 'the cause of every discrepancy, open or not, shadows apart';

-- Those that closed were forgotten, and those that still are members may be of a cause that was not their last.
INSERT INTO discrepancy_news (org, discrepancy_id)
    SELECT org, id FROM discrepancies WHERE NOT shadow AND (state <> 'raised' OR status = 'resolved')
    ORDER BY raised_at, id;
