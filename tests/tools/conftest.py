"""Tools run in this process: most of the time of a new one goes into imports."""

import sys
from types import ModuleType

import pytest


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Run a tool with these arguments; gives exit status, output and error output."""

    def run(tool: ModuleType, *words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{tool.__name__}.py", *map(str, words)])
        status = 0
        try:
            tool.main()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run
