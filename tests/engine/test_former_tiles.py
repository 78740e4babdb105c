"""The former keys of sliding windows are read as those of tiles."""

import argparse

import pytest
import yaml
from support.tiny_models import MASK_RCNN

from ccsa.engine import setup_cfg
from ccsa.engine.setup import _written_keys


def configured(folder, test, *options):
    """Return the keys TEST.TILES of a file with a section TEST, and of options."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({**MASK_RCNN, "TEST": test}))
    args = argparse.Namespace(config_file=str(file), opts=list(options))
    cfg = setup_cfg(args)
    assert cfg.TEST.SLIDING_WINDOW.CROP == cfg.TEST.SLIDING_WINDOW.STRIDE == []
    keys = cfg.TEST.TILES
    return keys.ENABLED, keys.SIZE, keys.OVERLAP, _written_keys(args)


@pytest.mark.parametrize(
    ("former", "options", "expected"),
    [
        ({}, [], (False, [769, 769], [256, 256])),
        ({"ENABLED": True}, [], (True, [769, 769], [256, 256])),
        ({"ENABLED": True, "CROP": [800, 600]}, [], (True, [800, 600], [287, 87])),
        ({"CROP": [100, 80], "STRIDE": [70, 80]}, [], (False, [100, 80], [30, 0])),
        ({"CROP": [900, 900]}, ["TEST.TILES.SIZE", "[300, 300]"], (False, [300, 300], [387, 387])),
        ({}, ["TEST.SLIDING_WINDOW.STRIDE", "[700, 700]"], (False, [769, 769], [69, 69])),
        (
            {"ENABLED": True},
            ["TEST.SLIDING_WINDOW.ENABLED", "False"],
            (False, *[[769] * 2], [256] * 2),
        ),
    ],
)
def test_former_keys_are_converted_and_later_ones_win(tmp_path, former, options, expected):
    section = {"SLIDING_WINDOW": former} if former else {}
    *found, written = configured(tmp_path, section, *options)
    assert tuple(found) == expected
    assert not [key for key in written if "SLIDING_WINDOW" in key]
    assert ("TEST.TILES.SIZE" in written) == ("CROP" in former or "TEST.TILES.SIZE" in options)
