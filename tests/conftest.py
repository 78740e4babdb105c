"""What the tests share: one thread (two may run at once), a tiny configuration, where the published
outputs lie, folders of runs."""

import argparse
import json
import logging
from pathlib import Path

import pytest
import torch

from ccsa.engine.setup import setup_cfg

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """The slow files first, and of them the longest: begun last, it would run on alone."""
    items.sort(key=lambda item: ("slow" not in item.keywords, item.path.name != "test_train.py"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder with outputs of the published programs; see its README."""
    return ROOT / "tests" / "vectors"


@pytest.fixture
def logged(caplog, monkeypatch):
    """Warnings of every logger, also where a test before this one has set up logging."""
    for name in ("ccsa", "fvcore", "detectron2"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.fixture
def make_run(root, tmp_path):
    """Run folders as tools/train_net.py leaves them, with results that are made up: None for an
    unfinished run. ``options`` are KEY VALUE words."""

    def make(folder, results, config="digits/fcn.yaml", memory=2**30, options=()) -> Path:
        path = tmp_path / folder
        path.mkdir(parents=True)
        words = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", path, *options]
        file = str(root / "configs" / config)
        cfg = setup_cfg(argparse.Namespace(config_file=file, opts=[str(w) for w in words]))
        (path / "config.yaml").write_text(cfg.dump())
        if results is not None:
            record = {"results": results, "seconds": 1.0, "peak_memory_bytes": memory}
            (path / "results.json").write_text(json.dumps(record))
        return path

    return make
