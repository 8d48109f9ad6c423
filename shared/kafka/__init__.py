"""Everything that speaks Kafka goes through here: one client factory, the declared topics, one partitioner."""
