"""Where the bots' reconciliation used to be started from; see `main`."""
