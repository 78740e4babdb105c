"""Helpers without a place in the field: files, memory, folders of runs."""
