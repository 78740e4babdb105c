"""Fixtures of the tests of the tools."""

from support.in_process import run_tool

__all__ = ["run_tool"]
