"""Drills: what people do before they need it."""
