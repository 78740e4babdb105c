"""Where a format loses nothing, the first training batch has the same loss in every format."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from support import own_scenes

from ccsa.config import add_ccsa_config
from ccsa.data.loaders import build_train_loader
from ccsa.engine.own_data import apply_own_data

CONFIGS = Path(__file__).parents[3] / "configs" / "own"
LOSSLESS = [name for name, row in own_scenes.DIALECTS.items() if row[2] and row[4]]


def first_losses(folder, config):
    """Return the losses of the first batch of a folder, from fixed seeds."""
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.merge_from_file(str(CONFIGS / config))
    cfg.MODEL.DEVICE = "cpu"
    apply_own_data(cfg, argparse.Namespace(data=str(folder), epochs=1), ())
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.SOLVER.IMS_PER_BATCH = (96,), 2
    cfg.INPUT.CROP.ENABLED = False
    seed_all_rng(3)
    model = build_model(cfg)
    seed_all_rng(5)
    batch = next(iter(build_train_loader(cfg)))
    seed_all_rng(7)
    with EventStorage():
        losses = model(batch)
    names = [Path(inputs["file_name"]).stem for inputs in batch]
    return names, {name: loss.item() for name, loss in losses.items()}


@pytest.fixture(scope="module")
def scenes():
    return own_scenes.make_scenes(28)


@pytest.fixture(scope="module")
def reference(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    own_scenes.write_coco_compressed(folder, scenes)
    return {kind: first_losses(folder, kind) for kind in ("mask_rcnn.yaml", "ccnet.yaml")}


def compare(found, expected):
    assert found[0] == expected[0]  # the same images in the same order
    assert found[1] == pytest.approx(expected[1], abs=1e-6)
    assert sum(found[1].values()) > 0.1


@pytest.mark.parametrize("dialect", LOSSLESS)
def test_the_first_loss_of_a_detector_is_the_same(dialect, scenes, reference, tmp_path):
    assert {"coco_uncompressed", "cvat", "coco_panoptic"} <= set(LOSSLESS)
    own_scenes.DIALECTS[dialect][0](tmp_path, scenes)
    compare(first_losses(tmp_path, "mask_rcnn.yaml"), reference["mask_rcnn.yaml"])


@pytest.mark.parametrize("mode", ["L", "P"])
def test_the_first_loss_of_a_semantic_model_is_the_same(mode, scenes, reference, tmp_path):
    """Class masks, and the classes of pixels that are drawn from instances."""
    own_scenes.write_class_masks(tmp_path, scenes, mode)
    compare(first_losses(tmp_path, "ccnet.yaml"), reference["ccnet.yaml"])


def test_the_first_loss_of_instance_labels_is_the_same(scenes, tmp_path):
    """They store no classes, so both formats have a single one."""
    plain = [scene._replace(objects=[(0, mask) for _, mask in scene.objects]) for scene in scenes]
    own_scenes.write_instance_labels(tmp_path / "labels", plain)
    own_scenes.write_coco_compressed(tmp_path / "coco", plain)
    for file in (tmp_path / "coco").glob("*.json"):
        content = json.loads(file.read_text())
        content["categories"] = [{"id": 1, "name": "object"}]
        file.write_text(json.dumps(content))
    expected = first_losses(tmp_path / "coco", "mask_rcnn.yaml")
    compare(first_losses(tmp_path / "labels", "mask_rcnn.yaml"), expected)
    assert torch.isfinite(torch.tensor(list(expected[1].values()))).all()
