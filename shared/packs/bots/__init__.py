"""Strategy bots against their fills, their orders and the exchange.

`rules.yaml` and `vocabulary.yaml` are the pack; `thresholds` fills in the numbers, `rules` makes the rules of them,
`events` makes events of what bots write, `tail` reads on where it stopped, `findings` says it in the pack's words.
"""
