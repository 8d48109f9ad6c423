"""What drives ingest: HTTP requests and the inbox loop."""
