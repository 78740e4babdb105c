"""Studies that are documented in docs/: their plans, tables and pictures."""
