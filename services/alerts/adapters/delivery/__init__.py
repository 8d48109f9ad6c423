"""Outgoing webhooks: the HTTP client, and the outbox, endpoints and attempts in PostgreSQL."""
