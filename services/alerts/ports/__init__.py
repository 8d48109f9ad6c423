"""What the use cases and handlers of alerts need from outside, one module per subject; adapters fulfil it."""
