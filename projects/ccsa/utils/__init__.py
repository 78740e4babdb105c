"""Utilities without a topic of their own: files, memory and run folders."""
