"""Rules: the YAML people write (`model`, `load`), what it compiles to (`match_rule`, `extract`), and its generation hash."""
