"""Every semantic experiment on a small copy of its own dataset, laid out as published.

The data is prepared, and each experiment trains for one step and is evaluated once. Models and
images are small; everything else is as configured. Names of former files stand for the base with
overlays that replaced them.
"""

import math
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.builtin import register_all_ade20k, register_all_cityscapes
from detectron2.utils.env import seed_all_rng
from support import former_configs, layouts

from ccsa.data import semantic
from ccsa.data.loaders import build_train_mapper, load_records
from ccsa.data.mapper import SemanticMapper
from ccsa.data.preparation.plans import execute
from ccsa.engine import Trainer, check_run
from ccsa.inference import build_semantic_inference

pytestmark = pytest.mark.slow
TESTS = Path(__file__).resolve().parents[1]
CONFIGS = TESTS.parent / "configs"
FILES = [
    CONFIGS / f"{name}.yaml"
    for name in former_configs.NAMES
    if name.partition("/")[0] in semantic.FAMILIES and "panoptic" not in name
]
SMALL = {
    "MODEL.WEIGHTS": "",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 16,
    "MODEL.SEM_SEG_HEAD.AUX.CHANNELS": 8,
    "MODEL.SEM_SEG_HEAD.SANET.CHANNELS": 16,
    "INPUT.CROP.SIZE": "[33, 33]",
    "INPUT.MIN_SIZE_TRAIN": "(24,)",
    "INPUT.MIN_SIZE_TEST": 0,
    "TEST.TILES.SIZE": "[17, 17]",
    "TEST.TILES.OVERLAP": "[5, 5]",
    "SOLVER.MAX_ITER": 1,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "DATALOADER.NUM_WORKERS": 0,
}

# By family, timm's own small models for tests.
SMALL_TIMM = {
    "efficientnet": "test_efficientnet",
    "convnext": "test_convnext",
    "resnet": "test_resnet",
}


@pytest.fixture(scope="module", autouse=True)
def published(datasets):
    """Every dataset, laid out as published and prepared, in catalogs that hold no other."""
    register_all_cityscapes(str(datasets))
    register_all_ade20k(str(datasets))
    for name, family in semantic.FAMILIES.items():
        layouts.LAYOUTS[name](datasets)
        execute(family.plan(datasets), name)
    layouts.camvid_frames(datasets)
    semantic.register_all(datasets)


@pytest.fixture
def small(configure, tmp_path):
    def load(file, **more):
        options = {**SMALL, **more}
        for family, name in SMALL_TIMM.items():
            if family in file.stem:
                options["MODEL.TIMM.NAME"] = name
        return configure(file, tmp_path, *(word for pair in options.items() for word in pair))

    return load


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_one_step_and_one_evaluation(small, file):
    whole, _ = small(file)
    more = {"INPUT.SEM_SEG.LONG_SIDE": 32} if whole.INPUT.SEM_SEG.LONG_SIDE else {}
    cfg, args = small(file, **more)
    check_run(cfg, args)
    seed_all_rng(0)
    trainer = Trainer(cfg)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    losses = {
        name: history.latest()
        for name, history in trainer.storage.histories().items()
        if "loss" in name
    }
    assert losses["total_loss"] > 0
    assert all(math.isfinite(value) for value in losses.values()), losses
    assert ("loss_ccl_var" in losses) == file.stem.endswith("_ccl")
    after = list(trainer.model.parameters())
    assert all(torch.isfinite(p).all() for p in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    (results,) = trainer.results.values()
    assert 0 <= results["mIoU"] <= 100
    assert {"fwIoU", "mACC", "pACC"} <= set(results)
    classes = MetadataCatalog.get(cfg.DATASETS.TEST[0]).stuff_classes
    assert {f"IoU-{name}" for name in classes} <= set(results)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_training_data_at_full_size(configure, file, tmp_path):
    """The augmentation as configured: its size, and labels that the head and its loss know."""
    cfg, _ = configure(file, tmp_path)
    seed_all_rng(0)
    mapper = build_train_mapper(cfg)
    assert isinstance(mapper, SemanticMapper)
    (name,) = cfg.DATASETS.TRAIN
    item = mapper(load_records(cfg, name)[0])
    size = item["image"].shape[-2:]
    if file.stem.startswith("ccnet3d"):
        assert item["image"].shape[:-2] == (1 if file.stem.endswith("_T1") else 5, 3)
    assert item["sem_seg"].shape == size
    if cfg.INPUT.CROP.ENABLED:
        assert list(size) == list(cfg.INPUT.CROP.SIZE)
    else:
        assert min(size) in cfg.INPUT.MIN_SIZE_TRAIN and max(size) <= cfg.INPUT.MAX_SIZE_TRAIN
    head = cfg.MODEL.SEM_SEG_HEAD
    assert len(MetadataCatalog.get(name).stuff_classes) == head.NUM_CLASSES
    labels = item["sem_seg"].unique().tolist()
    assert len(labels) > 2
    assert all(label < head.NUM_CLASSES or label == head.IGNORE_VALUE for label in labels)


def test_the_mirrored_test_image_swaps_left_and_right(small):
    file = CONFIGS / "lip" / "ccnet_R_50_os16_473_150ep.yaml"
    options = {"TEST.SEM_SEG_AUG.ENABLED": True, "TEST.SEM_SEG_AUG.SCALES": "[1.0]"}
    cfg, _ = small(file, **options)
    model = Trainer.build_model(cfg).eval()
    with torch.no_grad():  # a head that says left arm, wherever it looks
        model.sem_seg_head.predictor.weight.zero_()
        model.sem_seg_head.predictor.bias.copy_(torch.eye(20)[14])
    image = torch.zeros(3, 24, 32, dtype=torch.uint8)
    scores = build_semantic_inference(cfg, model)([{"image": image}])[0]["sem_seg"]
    wanted = torch.zeros(20)
    wanted[14:16] = 0.5  # the mirrored view's left arm is the right one
    assert torch.allclose(scores, wanted[:, None, None].expand_as(scores))
