"""What sets the matcher in motion: the assignment of partitions, the poll loop, the commits."""
