"""Fixtures of all tests. Every test process uses one thread, because two may run at the same
time."""

import argparse
import json
import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.logs import RUN_LOGGERS, forget_handlers

from ccsa.engine.setup import setup_cfg

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Run the slow files first, and the longest one before all others: started last, it would
    still run when everything else has finished."""
    items.sort(key=lambda item: ("slow" not in item.keywords, item.path.name != "test_train.py"))


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Return the folder with outputs of the published programs; see its README."""
    return ROOT / "tests" / "vectors"


@pytest.fixture(autouse=True)
def _no_handlers_of_other_tests():
    """Remove the log handlers that a run of an earlier test has left. They write to its streams,
    which are closed, and logging reports each failure on the standard error of this test."""
    forget_handlers(map(logging.getLogger, RUN_LOGGERS))


@pytest.fixture
def logged(caplog, monkeypatch):
    """Capture the warnings of every logger, even if an earlier test has set up logging."""
    for name in RUN_LOGGERS:
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.fixture
def make_run(root, tmp_path):
    """Return a function that makes a run folder like that of tools/train_net.py, with the given
    results (None for an unfinished run). ``options`` are KEY VALUE words."""

    def make(
        folder, results, config="digits/fcn.yaml", memory=2**30, options=(), overlays=()
    ) -> Path:
        path = tmp_path / folder
        path.mkdir(parents=True)
        words = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", path, *options]
        file = str(root / "configs" / config)
        args = argparse.Namespace(config_file=file, overlays=overlays, opts=[str(w) for w in words])
        cfg = setup_cfg(args)
        (path / "config.yaml").write_text(cfg.dump())
        if results is not None:
            record = {"results": results, "seconds": 1.0, "peak_memory_bytes": memory}
            (path / "results.json").write_text(json.dumps(record))
        return path

    return make


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Return a function that runs a command line in this process, because a new process would
    spend most of its time on imports."""

    def run(tool: ModuleType, *words) -> tuple[int, str, str]:
        """Return exit status, output and error output."""
        monkeypatch.setattr(sys, "argv", [f"{tool.__name__}.py", *map(str, words)])
        status = 0
        try:
            tool.main()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run
