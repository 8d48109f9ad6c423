"""Files that people have, as events: one module per format, each pure over a stream of bytes."""
