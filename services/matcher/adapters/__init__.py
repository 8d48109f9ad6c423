"""The matcher's ports on Kafka: transactions, the state log, results, metrics, the watchdog."""
