"""What alerts stands on: PostgreSQL, Kafka, outgoing HTTP."""
