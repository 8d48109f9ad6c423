CREATE TABLE budgets (
    org TEXT NOT NULL,
    budget TEXT NOT NULL,
    provider TEXT NOT NULL,
    currency TEXT NOT NULL,
    total NUMERIC NOT NULL,
    opening NUMERIC NOT NULL,
    plug_warn NUMERIC,
    plug_critical NUMERIC,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT budgets_pkey PRIMARY KEY (org, budget),
    CONSTRAINT budgets_totals CHECK (total >= 0 AND total < 'Infinity' AND opening >= 0 AND opening < 'Infinity')
);

COMMENT ON TABLE budgets IS 'money at a provider; its row is locked by whoever adds usage or a reconciliation';

COMMENT ON COLUMN budgets.opening IS 'the total it began with';

CREATE TABLE budget_reconciliation (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    reconciliation_date DATE NOT NULL,
    budget_before NUMERIC NOT NULL,
    manual_adjustment NUMERIC NOT NULL,
    budget_after NUMERIC NOT NULL,
    adjustment_reason TEXT NOT NULL,
    api_usage_tracked NUMERIC NOT NULL,
    manual_plug_amount NUMERIC NOT NULL,
    reconciled_by TEXT DEFAULT 'mcp-workflow' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    org TEXT NOT NULL,
    budget TEXT NOT NULL,
    provider TEXT NOT NULL,
    currency TEXT NOT NULL,
    CONSTRAINT budget_reconciliation_pkey PRIMARY KEY (id),
    CONSTRAINT budget_reconciliation_after CHECK (budget_after = budget_before + manual_adjustment),
    CONSTRAINT budget_reconciliation_plug CHECK (manual_plug_amount = -manual_adjustment),
    CONSTRAINT budget_reconciliation_usage CHECK (api_usage_tracked >= 0 AND api_usage_tracked < 'Infinity'),
    CONSTRAINT budget_reconciliation_not_negative CHECK (budget_after >= 0 OR adjustment_reason = 'top-up'),
    CONSTRAINT budget_reconciliation_finite CHECK (budget_before > '-Infinity' AND budget_before < 'Infinity' AND manual_adjustment > '-Infinity' AND manual_adjustment < 'Infinity'),
    CONSTRAINT budget_reconciliation_top_up CHECK (adjustment_reason <> 'top-up' OR manual_adjustment = 0)
);

CREATE INDEX budget_reconciliation_org_budget_id_idx ON budget_reconciliation (org, budget, id);

COMMENT ON TABLE budget_reconciliation IS 'tracked usage + plugs = total - remaining, always; the database refuses UPDATE, DELETE and TRUNCATE';

CREATE TABLE budget_calls (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    org TEXT NOT NULL,
    budget TEXT NOT NULL,
    idempotency_key TEXT,
    request TEXT NOT NULL,
    first_id BIGINT,
    last_id BIGINT,
    actor TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT budget_calls_pkey PRIMARY KEY (id),
    CONSTRAINT budget_calls_org_budget_idempotency_key_key UNIQUE (org, budget, idempotency_key)
);

CREATE INDEX budget_calls_org_budget_first_id_idx ON budget_calls (org, budget, first_id);

COMMENT ON TABLE budget_calls IS 'who asked for which rows; a call that comes again gets the rows it made';

COMMENT ON COLUMN budget_calls.request IS 'what was asked, in canonical JSON';

COMMENT ON COLUMN budget_calls.first_id IS 'first row that it added; null: it changed nothing';

COMMENT ON COLUMN budget_calls.actor IS 'the API key that asked';

CREATE TABLE budget_usage (
    org TEXT NOT NULL,
    budget TEXT NOT NULL,
    id TEXT NOT NULL,
    amount NUMERIC NOT NULL,
    occurred_at TIMESTAMP WITH TIME ZONE,
    tracked_at TIMESTAMP WITH TIME ZONE NOT NULL,
    since BIGINT NOT NULL,
    CONSTRAINT budget_usage_pkey PRIMARY KEY (org, budget, id),
    CONSTRAINT budget_usage_amount CHECK (amount >= 0 AND amount < 'Infinity')
);

CREATE INDEX budget_usage_org_budget_since_idx ON budget_usage (org, budget, since);

COMMENT ON COLUMN budget_usage.id IS 'of the tracker: the same twice is one usage';

COMMENT ON COLUMN budget_usage.since IS 'the budget''s last reconciliation when it was tracked; 0: none';

CREATE TABLE odometer_readings (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    org TEXT NOT NULL,
    provider TEXT NOT NULL,
    currency TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    month TEXT NOT NULL,
    value NUMERIC NOT NULL,
    closing BOOLEAN NOT NULL,
    entered_by TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT odometer_readings_pkey PRIMARY KEY (id),
    CONSTRAINT odometer_readings_value CHECK (value >= 0 AND value < 'Infinity')
);

CREATE INDEX odometer_readings_org_provider_id_idx ON odometer_readings (org, provider, id);

COMMENT ON COLUMN odometer_readings.closing IS 'the final figure of its month';

ALTER TABLE budgets ENABLE ROW LEVEL SECURITY;

ALTER TABLE budgets FORCE ROW LEVEL SECURITY;

CREATE POLICY by_org ON budgets
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE budget_reconciliation ENABLE ROW LEVEL SECURITY;

ALTER TABLE budget_reconciliation FORCE ROW LEVEL SECURITY;

CREATE POLICY by_org ON budget_reconciliation
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE budget_calls ENABLE ROW LEVEL SECURITY;

ALTER TABLE budget_calls FORCE ROW LEVEL SECURITY;

CREATE POLICY by_org ON budget_calls
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE budget_usage ENABLE ROW LEVEL SECURITY;

ALTER TABLE budget_usage FORCE ROW LEVEL SECURITY;

CREATE POLICY by_org ON budget_usage
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

ALTER TABLE odometer_readings ENABLE ROW LEVEL SECURITY;

ALTER TABLE odometer_readings FORCE ROW LEVEL SECURITY;

CREATE POLICY by_org ON odometer_readings
    USING (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*')
    WITH CHECK (org = (SELECT current_setting('tieout.org', true)) OR (SELECT current_setting('tieout.org', true)) = '*');

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON budget_reconciliation
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON budget_calls
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON budget_usage
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON odometer_readings
    FOR EACH STATEMENT EXECUTE FUNCTION tieout_refuse_change();

-- A row follows the one before it, whoever writes it: what remained then, less the usage tracked since, plus what the
-- total grew by if it is a top-up. The budget's row is locked, so that no other row comes in between.
CREATE FUNCTION tieout_budget_follows() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE
    held budgets%ROWTYPE; last budget_reconciliation%ROWTYPE; used NUMERIC; due NUMERIC; accounted NUMERIC; BEGIN
    SELECT * INTO held FROM budgets b WHERE b.org = NEW.org AND b.budget = NEW.budget FOR UPDATE; IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no budget %', NEW.budget USING ERRCODE = 'foreign_key_violation'; END IF; SELECT * INTO last
        FROM budget_reconciliation r WHERE r.org = NEW.org AND r.budget = NEW.budget ORDER BY r.id DESC LIMIT 1; SELECT
        coalesce(sum(u.amount), 0) INTO used FROM budget_usage u
        WHERE u.org = NEW.org AND u.budget = NEW.budget AND u.since = coalesce(last.id, 0); SELECT
        coalesce(sum(r.api_usage_tracked + r.manual_plug_amount), 0) INTO accounted FROM budget_reconciliation r
        WHERE r.org = NEW.org AND r.budget = NEW.budget; due := coalesce(last.budget_after, held.opening) - used; IF
        NEW.api_usage_tracked <> used THEN
        RAISE EXCEPTION 'usage of % was tracked since the last row of %, not of %', used, NEW.budget, NEW.api_usage_tracked
            USING ERRCODE = 'check_violation'; END IF; IF
        NEW.adjustment_reason <> 'top-up' AND NEW.budget_before <> due THEN
        RAISE EXCEPTION 'the row does not follow the last one of %: before is %, not %', NEW.budget, due, NEW.budget_before
            USING ERRCODE = 'check_violation'; END IF; IF
        held.total - NEW.budget_after <> accounted + NEW.api_usage_tracked + NEW.manual_plug_amount THEN
        RAISE EXCEPTION 'the total of % less what remains is not its tracked usage plus its plugs', NEW.budget
            USING ERRCODE = 'check_violation'; END IF; RETURN NEW; END $$;

CREATE TRIGGER follows BEFORE INSERT ON budget_reconciliation FOR EACH ROW EXECUTE FUNCTION tieout_budget_follows();
