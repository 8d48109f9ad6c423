"""What operators look at: how the bots stand now, and how far they drifted over time."""
