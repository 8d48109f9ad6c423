"""Real Kafka, real PostgreSQL and the service processes on one machine, without Docker."""
