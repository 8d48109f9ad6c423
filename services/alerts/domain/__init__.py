"""Pure rules of alerts: triage, reports, schedules, deliveries. No I/O, no clock."""
