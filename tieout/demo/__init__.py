"""`tieout demo`: every service on this machine, a realistic stream over HTTP, discrepancies as they come and go."""
