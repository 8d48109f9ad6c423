"""Budgets: what remains, odometers and plugs that grow. The file is the pack."""
