"""No experiment was lost when overlays replaced configuration files."""

import argparse
import json

import pytest
from detectron2.config import CfgNode, get_cfg
from support import former_configs

from ccsa.config import CONVERTED_KEYS, RENAMED_KEYS, add_ccsa_config
from ccsa.engine.config_files import read_config_file
from ccsa.engine.config_values import merge_content
from ccsa.engine.overlays import apply_overlays
from ccsa.engine.setup import setup_cfg


def flat(cfg, prefix=""):
    values = {}
    for key, value in cfg.items():
        nested = isinstance(value, CfgNode) and value
        values.update(flat(value, f"{prefix}{key}.") if nested else {prefix + key: value})
    return values


def test_every_former_file_exists_or_has_a_command(root):
    files = [p.relative_to(root / "configs") for p in (root / "configs").rglob("*.yaml")]
    files = {str(p.with_suffix("")) for p in files if p.parts[0] != "overlays"}
    names = former_configs.NAMES
    assert len(names) == len(set(names)) == 147
    assert sorted(set(names) - files) == sorted(former_configs.replaced())
    for name in ("mask_rcnn", "ccnet_mask_rcnn", "sa_mask_rcnn", "se_mask_rcnn"):
        assert name in files
    kept = [n for n in names if n.startswith("digits/") or n.endswith(("mmseg", "official"))]
    assert {"nonlocal_mask_rcnn", *kept} <= files


@pytest.mark.parametrize("name", former_configs.NAMES)
def test_the_command_gives_the_same_configuration(name):
    file, overlays = former_configs.command(name)
    cfg = get_cfg()
    add_ccsa_config(cfg)
    merge_content(cfg, read_config_file(file), file)
    found = json.loads(json.dumps(flat(apply_overlays(cfg, overlays, file))))
    expected = former_configs.resolved(name)
    sizes, strides = (expected.pop(key) for key in CONVERTED_KEYS)
    assert found["TEST.TILES.SIZE"] == sizes
    overlaps = [size - stride for size, stride in zip(sizes, strides, strict=True)]
    assert found["TEST.TILES.OVERLAP"] == overlaps
    for key, value in expected.items():
        assert found[RENAMED_KEYS.get(key, key)] == value, key


def test_setup_applies_overlays_before_the_options():
    file, overlays = former_configs.command("pascal_voc/sanet_R_101_os8_480_50ep_finetune")
    assert overlays == ["R_101_deep_stem", "finetune"]
    args = argparse.Namespace(
        config_file=file, overlays=overlays, opts=["MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "7"]
    )
    cfg = setup_cfg(args)
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (101, 0.0001, 7)
