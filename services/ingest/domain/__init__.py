"""What ingest knows: signatures, providers' mappings, rows, and how an inbox record becomes events and legs. Pure."""
