"""What the exchange says the bots' accounts hold: asked with ccxt, written for the checks and for people."""
