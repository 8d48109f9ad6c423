"""Benchmarks: what a part reaches, beside the limit of the machine measured in the same run."""
