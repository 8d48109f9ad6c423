"""`tieout import`: files to events, looked at first, written to a file, or sent to ingest."""
