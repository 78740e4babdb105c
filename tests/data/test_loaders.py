"""Data loaders: clips for the models that declare them, and no video code for any other model."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import BoxMode
from PIL import Image
from torch import nn

from ccsa.config import add_ccsa_config
from ccsa.data import loaders
from ccsa.data.evaluator_types import evaluator_type
from ccsa.data.loaders import (
    build_test_loader,
    build_train_loader,
    build_train_mapper,
    load_records,
)
from ccsa.data.mapper import ReportingMapper, SemanticMapper

H, W = 16, 24
LEVELS = range(1, 5)  # brightness of the frames 1 to 4, of which the last is labeled


class OwnVideoModel(nn.Module):
    """A meta-architecture of a user that declares clips."""

    takes_clips = True


class OwnImageModel(nn.Module):
    """A meta-architecture of a user that declares nothing."""


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    for level in LEVELS:
        frame = np.full((H, W, 3), level, np.uint8)
        Image.fromarray(frame).save(tmp_path / f"a_{level}.png")
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.ones((H, W), np.uint8)).save(tmp_path / "labels" / "a_4.png")
    record = {
        "file_name": str(tmp_path / "a_4.png"),
        "sem_seg_file_name": str(tmp_path / "labels" / "a_4.png"),
        "frames_root": str(tmp_path),
    }
    monkeypatch.setattr(DatasetCatalog, "data", {})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    DatasetCatalog.register("frames", lambda: [dict(record)])
    MetadataCatalog.get("frames").set(evaluator_type="sem_seg")
    monkeypatch.setattr(META_ARCH_REGISTRY, "_obj_map", dict(META_ARCH_REGISTRY._obj_map))
    for model in (OwnVideoModel, OwnImageModel):
        META_ARCH_REGISTRY.register(model)
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("frames",)
    cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH = 0, 1
    cfg.INPUT.CLIP.FRAMES, cfg.INPUT.RANDOM_FLIP = 3, "none"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (H,), H
    return cfg


@pytest.mark.parametrize("name", ["OwnVideoModel", "VideoSemanticSegmentor"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "in ContextModel"])
def test_a_declared_video_model_gets_clips_to_train_and_to_evaluate(cfg, name, wrapped):
    cfg.MODEL.META_ARCHITECTURE = "ContextModel" if wrapped else name
    cfg.MODEL.CONTEXT.META_ARCHITECTURE = name
    for loader in (build_train_loader(cfg), build_test_loader(cfg, "frames")):
        (item,) = next(iter(loader))
        assert item["image"].shape == (3, 3, H, W)
        assert [frame.unique().tolist() for frame in item["image"]] == [[2], [3], [4]]
    (record,) = load_records(cfg, "frames")
    assert len(record["clip_file_names"]) == 3


@pytest.mark.parametrize("name", ["OwnImageModel", "SemanticSegmentor", "GeneralizedRCNN"])
def test_image_models_never_run_video_code(cfg, name, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("an image model ran video code")

    monkeypatch.setattr(loaders, "with_clips", fail)
    monkeypatch.setattr(loaders, "ClipMapper", fail)
    monkeypatch.setattr(loaders.Clip, "of", fail)
    cfg.INPUT.CLIP.FRAMES = 0  # would be rejected
    cfg.MODEL.META_ARCHITECTURE = name
    for loader in (build_train_loader(cfg), build_test_loader(cfg, "frames")):
        (item,) = next(iter(loader))
        assert item["image"].shape == (3, H, W) and item["image"].unique().tolist() == [4]
    assert load_records(cfg, "frames") == DatasetCatalog.get("frames")
    (item,) = next(iter(build_train_loader(cfg)))
    assert torch.equal(item["sem_seg"], torch.ones(H, W, dtype=torch.long))


def test_the_kind_of_a_dataset_follows_from_its_records(cfg):
    """A dataset that is registered without evaluator_type trains as it is evaluated."""
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    (record,) = DatasetCatalog.get("frames")
    annotation = {"bbox": [1, 1, 5, 5], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    records = {
        "pixels": record,
        "objects": {"file_name": record["file_name"], "annotations": [annotation]},
        "both": {**record, "annotations": [annotation]},
    }
    for name, content in records.items():
        DatasetCatalog.register(name, lambda content=content: [dict(content)])
    kinds = {name: evaluator_type(name) for name in records}
    assert kinds == {"pixels": "sem_seg", "objects": "coco", "both": "coco"}
    assert evaluator_type("no such") is None
    for names, mapper in [
        (("pixels",), SemanticMapper),
        (("frames", "pixels"), SemanticMapper),
        (("objects",), ReportingMapper),
        (("pixels", "both"), ReportingMapper),
        ((), ReportingMapper),
    ]:
        cfg.DATASETS.TRAIN = names
        assert type(build_train_mapper(cfg)) is mapper, names
    cfg.DATASETS.TRAIN = ("pixels",)
    (item,) = next(iter(build_train_loader(cfg)))
    assert torch.equal(item["sem_seg"], torch.ones(H, W, dtype=torch.long))
