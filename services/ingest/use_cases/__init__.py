"""What ingest does for a producer: accept a webhook, accept posted events."""
