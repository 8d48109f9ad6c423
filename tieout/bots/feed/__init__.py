"""Live path of the bots pack: what bots write goes to ingest as events, each line once, and never before it was whole."""
