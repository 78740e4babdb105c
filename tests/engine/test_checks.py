"""Errors that check_run raises before a run starts."""

import argparse
import os
import re
import time
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from support.refusals import message

from ccsa.engine import checks
from ccsa.engine.checks import (
    check_dataset,
    check_model,
    check_run,
)
from ccsa.engine.processes import check_processes
from ccsa.engine.setup import setup_cfg
from ccsa.errors import UserError


def arguments(**changes):
    values = {"num_gpus": 1, "num_machines": 1, "opts": [], "eval_only": False, "resume": False}
    address = {"machine_rank": 0, "dist_url": "tcp://127.0.0.1:29500"}
    return argparse.Namespace(**{**values, **address, **changes})


@pytest.fixture
def config(root):
    def make(*opts):
        file = root / "configs/digits/ccnet_mask_rcnn.yaml"
        return setup_cfg(argparse.Namespace(config_file=str(file), opts=[*map(str, opts)]))

    return make


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Change into a folder without any dataset."""
    if "DETECTRON2_DATASETS" in os.environ:
        pytest.skip("DETECTRON2_DATASETS is set, so that the folder of the datasets is fixed")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def dataset():
    names = []

    def register(name, **metadata):
        names.append(name)
        DatasetCatalog.register(name, list)
        MetadataCatalog.get(name).set(**metadata)
        return name

    yield register
    for name in names:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


# Datasets.


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("digits_trian", "digits_train"),
        ("coco_2017_trian", "coco_2017_train"),
        ("coco_2017_value", "coco_2017_val"),
        ("zzzzzzzz", "digits_train"),
    ],
)
def test_an_unknown_dataset_is_named_with_near_misses(name, near):
    text = message(check_dataset, name)
    assert f"'{name}'" in text
    suggested = text.split("did you mean ")[1].removesuffix("?")
    assert near in re.split(", | or | and ", suggested)


def test_missing_coco_is_told_with_all_that_cures_it(elsewhere):
    for name, file in (
        ("coco_2017_train", "datasets/coco/annotations/instances_train2017.json"),
        ("coco_2017_val", "datasets/coco/annotations/instances_val2017.json"),
    ):
        text = message(check_dataset, name)
        assert f"'{name}'" in text
        assert str(elsewhere / file) in text  # absolute
        for archive in ("train2017.zip", "val2017.zip", "annotations_trainval2017.zip"):
            assert archive in text
        assert "cocodataset.org" in text and "coco/annotations" in text
        assert "export DETECTRON2_DATASETS=" in text and "./datasets" in text
        assert "--config-file configs/digits/ccnet_mask_rcnn.yaml" in text


def test_panoptic_coco_that_is_not_there_says_how_it_is_prepared(elsewhere):
    with pytest.raises(UserError, match=r"tools/prepare_dataset\.py coco_panoptic"):
        check_dataset("coco_2017_val_panoptic_separated")


def test_coco_without_its_images_is_missing_too(elsewhere):
    annotations = elsewhere / "datasets/coco/annotations"
    annotations.mkdir(parents=True)
    (annotations / "instances_train2017.json").write_text("{}")
    text = message(check_dataset, "coco_2017_train")
    assert str(elsewhere / "datasets/coco/train2017") in text
    (elsewhere / "datasets/coco/train2017").mkdir()
    check_dataset("coco_2017_train")


FAMILIES = ("coco", "keypoints_coco", "lvis", "cityscapes", "voc", "ade20k")


def test_every_dataset_of_detectron2_is_missed_where_it_is_not(elsewhere):
    names = [n for n in DatasetCatalog.list() if n.startswith(FAMILIES)]
    names = [n for n in names if not MetadataCatalog.get(n).get("own")]  # of other tests
    assert {name.split("_")[0] for name in names} >= {"coco", "lvis", "cityscapes", "voc"}
    passed = []
    for name in names:
        try:
            check_dataset(name)
            passed.append(name)
        except UserError as error:
            assert name in str(error) and str(elsewhere) in str(error)
    assert passed == []


@pytest.mark.parametrize(
    "key", ["json_file", "image_root", "panoptic_json", "panoptic_root", "sem_seg_root"]
)
def test_every_place_is_looked_at(dataset, tmp_path, key):
    places = ("json_file", "image_root", "panoptic_json", "panoptic_root", "sem_seg_root")
    metadata = {place: str(tmp_path / place) for place in places}
    for place in places:
        if place != key:
            (tmp_path / place).write_text("")
    name = dataset(f"placed_{key}", **metadata)
    assert str(tmp_path / key) in message(check_dataset, name)
    (tmp_path / key).write_text("")
    check_dataset(name)


def test_built_in_datasets_are_not_looked_for(elsewhere):
    for name in ("digits_train", "digits_val", "digits_val_sem_seg"):
        check_dataset(name)
    assert not list(elsewhere.iterdir())  # and they are not written yet


# Processes.


def test_more_gpus_than_there_are_are_refused(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_processes(config("MODEL.DEVICE", "cpu"), arguments())
    text = message(check_processes, config(), arguments(num_gpus=2))
    assert "--num-gpus 2" in text and "0 CUDA devices" in text and "MODEL.DEVICE cpu" in text
    opts = ["MODEL.DEVICE", "cpu"]
    check_processes(config(*opts), arguments(num_gpus=2, opts=opts))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    check_processes(config(), arguments(num_gpus=4))
    assert "4 CUDA devices" in message(check_processes, config(), arguments(num_gpus=8))


@pytest.mark.parametrize("changes", [{"num_gpus": 0}, {"num_machines": 0}, {"num_gpus": -1}])
def test_less_than_one_process_is_refused(config, changes):
    assert "at least 1" in message(check_processes, config(), arguments(**changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_machines": 2, "machine_rank": 5}, "number the machines from 0 to 1"),
        ({"num_machines": 2, "machine_rank": -1}, "--machine-rank -1 does not exist"),
        ({"machine_rank": 1}, "--machine-rank 1 does not exist for --num-machines 1"),
        ({"num_machines": 2, "dist_url": "auto"}, "--dist-url auto is only possible on one"),
        ({"dist_url": "nonsense"}, "--dist-url 'nonsense' is not an address"),
        ({"dist_url": "tcp://127.0.0.1"}, "is not an address"),
        ({"dist_url": "tcp://127.0.0.1:99999"}, "a port from 1 to 65535"),
        ({"dist_url": ""}, "--dist-url '' is not an address"),
        ({"num_machines": 10**9}, "at most 1000000, not 1000000000"),
        ({"num_gpus": 10**5, "opts": ["MODEL.DEVICE", "cpu"]}, "too much for the .* CPU cores"),
    ],
)
def test_processes_that_cannot_find_each_other_are_refused(config, changes, expected):
    text = message(check_processes, config("MODEL.DEVICE", "cpu"), arguments(**changes))
    assert re.search(expected, text), text


def test_addresses_of_one_and_of_several_machines_are_accepted(config):
    cfg = config("MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", "8")
    for url in ("tcp://host-1.example:29500", "tcp://[::1]:1", "tcp://127.0.0.1:65535"):
        check_processes(cfg, arguments(num_machines=2, machine_rank=1, dist_url=url))
    check_processes(cfg, arguments(dist_url="auto"))


def test_a_batch_that_cannot_be_shared_is_refused(config):
    opts = ["MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", "8"]
    for world in ({"num_gpus": 2}, {"num_gpus": 2, "num_machines": 4}):
        check_processes(config(*opts), arguments(opts=opts, **world))
    for world, count in (({"num_gpus": 3}, 3), ({"num_gpus": 2, "num_machines": 3}, 6)):
        text = message(check_processes, config(*opts), arguments(opts=opts, **world))
        assert "SOLVER.IMS_PER_BATCH 8" in text and f"{count} processes" in text
        assert f"multiple of {count}" in text
        check_processes(config(*opts), arguments(opts=opts, eval_only=True, **world))


def test_a_batch_is_held_against_the_reference_world_size(config):
    opts = ["MODEL.DEVICE", "cpu", "SOLVER.REFERENCE_WORLD_SIZE", "8", "SOLVER.IMS_PER_BATCH"]
    # The batch scales with the number of processes, so it need not be divisible by it.
    check_processes(config(*opts, 16), arguments(num_gpus=3, opts=opts))
    text = message(check_processes, config(*opts, 12), arguments())
    assert "12" in text and "REFERENCE_WORLD_SIZE 8" in text
    assert "SOLVER.REFERENCE_WORLD_SIZE 0" in text


# The model.


def blocks(at="backbone.bottom_up.res4.-2", block="CrissCross", **keywords):
    return ["MODEL.CONTEXT.BLOCKS", [{"at": at, "block": block, **keywords}]]


def test_a_good_model_passes_and_the_configuration_stays(config):
    cfg = config()
    before = cfg.dump()
    check_model(cfg)
    assert cfg.dump() == before and cfg.is_frozen()


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (blocks(at="backbone.bottom_up.res6"), ["res6", "did you mean res5, res4 or res3?"]),
        (blocks(at="backbone.botom_up.res4"), ["botom_up", "did you mean bottom_up?", "top_block"]),
        (blocks(at="backbone.bottom_up.res4.-9"), ["backbone.bottom_up.res4", "'-9'"]),
        (blocks(block="CrisCross"), ["CrisCross", "did you mean CrissCross"]),
        (blocks(recurence=2), ["recurence", "did you mean recurrence"]),
        (blocks(recurrence=-1), ["recurrence", "-1"]),
        (["MODEL.CONTEXT.META_ARCHITECTURE", "RCNN"], ["RCNN", "GeneralizedRCNN"]),
        (["MODEL.ROI_HEADS.NAME", "Heads"], ["Heads", "ROI_HEADS"]),
        (["MODEL.BACKBONE.NAME", "build_net"], ["build_net", "BACKBONE"]),
        (["MODEL.META_ARCHITECTURE", "Model"], ["Model", "META_ARCH"]),
        (["MODEL.RESNETS.RES2_OUT_CHANNELS", 256], ["RES2_OUT_CHANNELS"]),  # needed by R18
    ],
    ids=lambda value: str(value[-1])[-40:],
)
def test_a_model_that_cannot_be_built_is_refused_with_the_reason(config, opts, words):
    text = message(check_model, config(*opts))
    assert all(word in text for word in words), text


def test_the_model_is_built_without_memory(config, monkeypatch):
    start = time.perf_counter()
    check_model(config("MODEL.ROI_BOX_HEAD.NUM_FC", 1, "MODEL.ROI_BOX_HEAD.FC_DIM", 2**16))
    assert time.perf_counter() - start < 5
    built = []
    build = checks.build_model
    monkeypatch.setattr(checks, "build_model", lambda cfg: built.append(build(cfg)) or built[0])
    check_model(config())
    tensors = [*built[0].parameters(), *built[0].buffers()]
    assert tensors and {t.device.type for t in tensors if t.numel() > 1000} == {"meta"}
    assert torch.zeros(1).device.type == "cpu"  # later tensors are not on the meta device


# The whole run.


def test_a_run_is_checked_in_all_parts(config, tmp_path):
    check_run(config(), arguments())
    bad = {
        "processes": (config(), {"num_gpus": 0}, "--num-gpus"),
        "training set": (config("DATASETS.TRAIN", ("nothing_train",)), {}, "nothing_train"),
        "test set": (config("DATASETS.TEST", ("nothing_val",)), {}, "nothing_val"),
        "weights": (config("MODEL.WEIGHTS", "nowhere.pth"), {}, "nowhere.pth"),
        "model": (config(*blocks(block="Nothing")), {}, "Nothing"),
        "augmentation": (
            config("TEST.AUG.ENABLED", True, "MODEL.KEYPOINT_ON", True),
            {},
            "MODEL.KEYPOINT_ON",
        ),
    }
    for cfg, changes, word in bad.values():
        assert word in message(check_run, cfg, arguments(**changes))


def test_evaluation_alone_needs_weights_and_no_training_set(config, tmp_path):
    text = message(check_run, config(), arguments(eval_only=True))
    assert "--eval-only" in text and "MODEL.WEIGHTS" in text and "--resume" in text
    check_run(config(), arguments(eval_only=True, resume=True))
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"x")
    cfg = config("MODEL.WEIGHTS", weights, "DATASETS.TRAIN", ("nothing_train",))
    check_run(cfg, arguments(eval_only=True))
    assert Path(cfg.MODEL.WEIGHTS).exists()


def test_resuming_does_not_look_for_the_weights_it_started_from(config):
    check_run(config("MODEL.WEIGHTS", "nowhere.pth"), arguments(resume=True))


def test_the_checks_know_context_model():
    assert "ContextModel" in META_ARCH_REGISTRY


def test_sync_bn_of_several_cpu_processes_is_refused(config):
    opts = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "SyncBN"]
    text = message(check_processes, config(*opts), arguments(num_gpus=2, opts=opts))
    assert "SyncBN" in text and "MODEL.RESNETS.NORM BN" in text
    check_processes(config(*opts), arguments(opts=opts))


def test_a_wrong_augmentation_is_refused_before_training(config):
    opts = ("INPUT.SEM_SEG.SCALE_RANGE", "[0.5, 2.0]")
    given = config("MODEL.DEVICE", "cpu", *opts)
    assert opts[0].rpartition(".")[0] in message(check_run, given, arguments())
    weights = Path(__file__)
    check_run(config(*opts, "MODEL.WEIGHTS", weights), arguments(eval_only=True))


def test_a_backend_that_cannot_run_is_refused_where_a_block_would_take_it(config, monkeypatch):
    block = "[{'at': 'backbone.bottom_up.res4', 'block': '%s'}]"
    monkeypatch.setenv("CCSA_BACKEND", "tritton")
    text = message(check_model, config("MODEL.CONTEXT.BLOCKS", block % "CrissCross"))
    assert text.startswith("CCSA_BACKEND: unknown backend 'tritton'")
    check_model(config("MODEL.CONTEXT.BLOCKS", block % "SqueezeExcitation"))
