"""Trading bots: what their files and the exchange say, as events and as reports."""
