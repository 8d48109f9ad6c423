"""Reconciliation without services: the same extraction and the same core, over files."""
