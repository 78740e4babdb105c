"""Checks of datasets on disk."""
