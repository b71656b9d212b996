"""The embedded engine: an epoch is one DuckDB transaction over state, journal and outbox."""
