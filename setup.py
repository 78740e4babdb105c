"""A shim for tools that still call setup.py. The metadata is in pyproject.toml."""

from setuptools import setup

setup()
