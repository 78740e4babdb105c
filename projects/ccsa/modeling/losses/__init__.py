"""Losses of the semantic heads."""
