"""A fixture that runs a command line in the process of the tests, because most of the time of a new
process goes into imports."""

import sys
from types import ModuleType

import pytest


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Return a function that runs a command line with the given arguments and returns its exit
    status, its output and its error output."""

    def run(tool: ModuleType, *words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{tool.__name__}.py", *map(str, words)])
        status = 0
        try:
            tool.main()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run
