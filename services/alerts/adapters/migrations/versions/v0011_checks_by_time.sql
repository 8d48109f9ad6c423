CREATE INDEX checks_org_pack_log_time_idx ON checks (org, pack, log_time);
