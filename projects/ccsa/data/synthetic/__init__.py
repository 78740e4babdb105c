"""Datasets that ccsa draws itself and writes to disk on first use."""
