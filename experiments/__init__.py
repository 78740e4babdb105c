"""Experiments that docs/ reports: which networks they train, their tables and their pictures."""
