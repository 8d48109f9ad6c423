"""What the matcher does with one partition, told without Kafka."""
