"""What ingest talks to: Kafka topics and the files that hold signing secrets."""
