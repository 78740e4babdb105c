"""Weights that were trained on other classes: never loaded under the names of the data."""

import argparse

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from support import own_scenes

from ccsa.checkpoint import Checkpointer, Classes, classes_entry, read_classes
from ccsa.data.own import task_data
from ccsa.engine import Trainer, setup_cfg
from ccsa.engine.stored_classes import (
    check_stored_classes,
    class_layers_to_restart,
    known_classes,
    stored_classes,
)
from ccsa.errors import UserError

CLASSES = own_scenes.CLASSES
OTHER = ["a", "b", "c"]


@pytest.fixture
def configure(root, tmp_path):
    """Return a function that gives the configuration of a model for the scenes, whose weights
    were trained on the given classes. The names are in the weights, or in a file beside them."""
    names = set(DatasetCatalog.list())
    own_scenes.DIALECTS["coco_mixed"][0](tmp_path / "data", own_scenes.make_scenes(7))
    weights = tmp_path / "run" / "model.pth"
    weights.parent.mkdir()
    weights.touch()

    def make(config, stored, stuff=(), inside=False):
        def load(*words):
            words = ["MODEL.DEVICE", "cpu", *words]
            file = str(root / f"configs/own/{config}.yaml")
            data = str(tmp_path / "data")
            return setup_cfg(argparse.Namespace(config_file=file, opts=words, data=data))

        if inside:
            classes = Classes(list(stored), list(stuff))
            torch.save({"model": {"a": torch.zeros(2)}, **classes_entry(classes)}, weights)
            return load("MODEL.WEIGHTS", str(weights))
        cfg = load().clone()
        cfg.defrost()
        cfg.DATASETS.OWN.CLASSES, cfg.DATASETS.OWN.STUFF_CLASSES = list(stored), list(stuff)
        (weights.parent / "config.yaml").write_text(cfg.dump())
        return load("MODEL.WEIGHTS", str(weights))

    yield make
    for name in set(DatasetCatalog.list()) - names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("inside", [False, True])
def test_other_classes_restart_in_training_and_are_rejected_in_evaluation(
    configure, caplog, inside
):
    cfg = configure("mask_rcnn", OTHER, inside=inside)
    with pytest.raises(UserError, match=r"trained on the classes a, b, c, but the data has ring"):
        check_stored_classes(cfg)
    keys = class_layers_to_restart(cfg)
    layers = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor")
    wanted = {f"roi_heads.{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}
    assert keys == wanted
    assert all(f"roi_heads.{layer}" in caplog.text for layer in layers)


@pytest.mark.parametrize("stored", [["a"], CLASSES])
def test_the_number_of_classes_may_differ_or_all_be_equal(configure, stored):
    cfg = configure("mask_rcnn", stored)
    assert bool(class_layers_to_restart(cfg)) == (stored != CLASSES)
    if stored == CLASSES:
        check_stored_classes(cfg)


def test_semantic_heads_restart_as_well(configure):
    cfg = configure("ccnet", [], ["background", *OTHER])
    keys = class_layers_to_restart(cfg)
    assert keys and all(key.startswith("sem_seg_head.") for key in keys)


@pytest.mark.parametrize("inside", [False, True])
def test_the_same_names_in_another_order_are_numbered_as_stored(configure, inside):
    stored = CLASSES[::-1]
    cfg = configure("mask_rcnn", stored, inside=inside)
    assert list(cfg.DATASETS.OWN.CLASSES) == stored == task_data(cfg).thing_classes
    check_stored_classes(cfg)
    assert not class_layers_to_restart(cfg)


@pytest.mark.parametrize("content", ["", "[", "DATASETS: 3", "DATASETS: {OWN: {CLASSES: 1}}"])
def test_a_file_of_another_program_stores_no_classes(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    assert not any(stored_classes(str(tmp_path / "w.pth")))
    assert not any(stored_classes(""))


def test_tensors_that_are_left_out_keep_their_values(tmp_path):
    saved, model = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    Checkpointer(saved, str(tmp_path)).save("model")
    bias = model.bias.clone()
    checkpointer = Checkpointer(model, training=True)
    checkpointer.left_out = {"bias"}
    checkpointer.load(str(tmp_path / "model.pth"))
    assert torch.equal(model.weight, saved.weight) and torch.equal(model.bias, bias)
    assert checkpointer.report.missing == ["bias"]


def test_the_names_in_the_weights_precede_those_beside_them(tmp_path):
    (tmp_path / "config.yaml").write_text("DATASETS: {OWN: {CLASSES: [x], STUFF_CLASSES: []}}")
    weights = tmp_path / "w.pth"
    torch.save({"model": {}}, weights)
    assert stored_classes(str(weights)) == (["x"], [])
    torch.save({"model": {}, "classes": {"things": ["y", "z"], "stuff": []}}, weights)
    assert stored_classes(str(weights)) == (["y", "z"], [])


@pytest.mark.parametrize(
    "content",
    [
        *({"classes": 3}, {"classes": {"things": "ab"}}, {"classes": {"things": [1]}}, [1], {}),
        {"classes": {"things": {"a": 1}, "stuff": None}},
    ],
)
def test_entries_of_other_programs_are_no_classes(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    assert not any(read_classes(tmp_path / "w.pth"))


def test_files_that_cannot_be_read_store_no_classes(tmp_path):
    torch.save({"classes": {"things": ["a"], "stuff": []}}, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    assert read_classes(tmp_path / "whole.pth") == (["a"], [])
    for name, damaged in {"cut": content[:-60], "empty": b"", "text": b"PK\x03\x04 no zip"}.items():
        (tmp_path / name).write_bytes(damaged)
        assert not any(read_classes(tmp_path / name))
    for name in ("", "no/such", "a\0b", "detectron2://a.pkl", str(tmp_path)):
        assert not any(read_classes(name))


def test_a_checkpoint_stores_the_classes_of_the_training_set(configure, tmp_path):
    cfg = configure("mask_rcnn", CLASSES).clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = "", str(tmp_path)
    trainer = Trainer(cfg)
    trainer.checkpointer.save("model", iteration=0)
    assert stored_classes(str(tmp_path / "model.pth")) == (CLASSES, [])
    assert known_classes(cfg) == (CLASSES, [])
    assert trainer.checkpointer.load(str(tmp_path / "model.pth"))["iteration"] == 0
