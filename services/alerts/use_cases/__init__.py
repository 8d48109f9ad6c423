"""What alerts does, one module per task, over ports."""
