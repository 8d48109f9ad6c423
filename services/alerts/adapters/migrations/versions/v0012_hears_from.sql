ALTER TABLE webhook_endpoints ADD COLUMN hears_from timestamptz;

COMMENT ON COLUMN webhook_endpoints.hears_from IS
    'results appended before it are not for this endpoint: by the broker''s clock, as the results; null: created_at';
