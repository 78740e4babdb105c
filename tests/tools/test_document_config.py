"""tools/document_config.py, which keeps docs/CONFIG.md equal to ccsa.config and the overlays."""

import sys

import document_config
import pytest
from detectron2.config import get_cfg

from ccsa.config import add_ccsa_config
from ccsa.engine.config_files import flat_keys


def test_the_document_is_up_to_date(root):
    source = document_config.SOURCE.read_text()
    text = document_config.document(source, root / "configs" / "overlays")
    assert document_config.TARGET.read_text() == text, "run python tools/document_config.py"


def test_every_key_of_ccsa_is_documented(root):
    text = (root / "docs" / "CONFIG.md").read_text()
    plain, cfg = get_cfg(), get_cfg()
    add_ccsa_config(cfg)
    keys = set(flat_keys(cfg)) - set(flat_keys(plain))
    assert len(keys) > 50
    assert not [key for key in keys if text.count(f"| `{key}` |") != 1]
    for name in ("r3", "R_101_deep_stem", "criss_cross"):
        assert f"| `{name}` |" in text


def test_a_document_that_is_out_of_date_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(document_config, "TARGET", tmp_path / "CONFIG.md")
    monkeypatch.setattr(sys, "argv", ["document_config.py", "--check"])
    with pytest.raises(SystemExit, match=r"run python tools/document_config\.py"):
        document_config.main()
    monkeypatch.setattr(sys, "argv", ["document_config.py"])
    document_config.main()
    monkeypatch.setattr(sys, "argv", ["document_config.py", "--check"])
    document_config.main()


def test_a_key_without_a_comment_is_reported(tmp_path):
    source = "def add(cfg):\n    cfg.MODEL.NEW = 1\n"
    with pytest.raises(SystemExit, match=r"MODEL\.NEW has no comment"):
        document_config.document(source, tmp_path)
