"""The versions, in order; a released one is never edited."""
