"""Small copies of the datasets as fixtures, and a catalog in which they are registered."""

from pathlib import Path
from types import ModuleType

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin import register_all_ade20k, register_all_cityscapes
from support import layouts as _layouts

from ccsa.data import semantic
from ccsa.data.preparation.plans import Outcome, execute


@pytest.fixture(scope="session")
def layouts() -> ModuleType:
    return _layouts


@pytest.fixture
def catalog(tmp_path, monkeypatch) -> Path:
    """Return an empty root; only the datasets under it are registered with Detectron2."""
    monkeypatch.setattr(DatasetCatalog, "data", {})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    register_all_cityscapes(str(tmp_path))
    register_all_ade20k(str(tmp_path))
    semantic.register_all(tmp_path)
    return tmp_path


@pytest.fixture
def prepare():
    """Return a function that prepares a family under a root, as the tool does."""

    def run(name: str, root: Path) -> Outcome:
        return execute(semantic.FAMILIES[name].plan(root), name)

    return run
