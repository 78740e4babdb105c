"""Fixtures of the tests of the benchmarks."""

from support.in_process import run_tool

__all__ = ["run_tool"]
