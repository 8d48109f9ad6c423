"""Providers that are asked for what their accounts hold, instead of telling it themselves."""
