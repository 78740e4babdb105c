"""ReportingMapper: the error names the file that cannot be read, and how to fix it."""

import argparse

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper
from PIL import Image

from ccsa.data.loaders import build_train_mapper
from ccsa.data.mapper import ReportingMapper
from ccsa.engine import setup_cfg
from ccsa.errors import UserError

H, W = 48, 64


@pytest.fixture
def record(tmp_path):
    rng = np.random.default_rng(0)
    file, labels = tmp_path / "scene.jpg", tmp_path / "labels.png"
    Image.fromarray(rng.integers(0, 255, (H, W, 3), np.uint8)).save(file)
    Image.fromarray(rng.integers(0, 5, (H, W), np.uint8)).save(labels)
    box = {"bbox": [4.0, 5.0, 20.0, 25.0], "bbox_mode": 0, "category_id": 3, "iscrowd": 0}
    return {
        "file_name": str(file),
        "sem_seg_file_name": str(labels),
        "height": H,
        "width": W,
        "image_id": 7,
        "annotations": [box],
    }


@pytest.fixture(params=[True, False], ids=["training", "testing"])
def mapper(request):
    return make_mapper(ReportingMapper, request.param)


def make_mapper(cls, is_train):
    cfg = get_cfg()
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.MIN_SIZE_TRAIN = (H,)
    return cls(cfg, is_train=is_train)


def damage(path, how):
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("<html>404 not found</html>")
    elif how == "cut in the header":
        path.write_bytes(data[:30])
    else:
        path.write_bytes(data[: len(data) // 2])


HOW = ["missing", "empty", "text", "cut in the header", "cut in the middle"]


@pytest.mark.parametrize("is_train", [True, False])
def test_a_good_record_is_mapped_as_detectron2_does(record, is_train):
    got = make_mapper(ReportingMapper, is_train)(record)
    wanted = make_mapper(DatasetMapper, is_train)(record)
    assert set(got) == set(wanted)
    assert torch.equal(got["image"], wanted["image"])
    if is_train:
        assert got["instances"].gt_classes.tolist() == [3]
        assert torch.equal(got["sem_seg"], wanted["sem_seg"])
    assert "annotations" in record  # the record itself is unchanged


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_image_is_named_with_the_cure(record, mapper, tmp_path, how):
    damage(tmp_path / "scene.jpg", how)
    with pytest.raises(UserError) as error:
        mapper(record)
    text = str(error.value)
    assert (
        record["file_name"] in text
        and "--resume" in text
        and "replace it with an intact copy" in text
    )
    assert "\n" not in text


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_label_image_is_named(record, tmp_path, how):
    damage(tmp_path / "labels.png", how)
    with pytest.raises(UserError) as error:
        make_mapper(ReportingMapper, True)(record)
    assert record["sem_seg_file_name"] in str(error.value)
    assert "--resume" in str(error.value)


def test_an_image_of_another_size_is_named(record, mapper):
    record["height"], record["width"] = W, H
    with pytest.raises(UserError) as error:
        mapper(record)
    text = str(error.value)
    assert record["file_name"] in text and str(H) in text and str(W) in text
    assert "annotations" in text


def test_polygons_are_cropped_without_shapely(root):
    case = root / "tests/vectors/own_data/image_with_crowds_alone"
    file = str(root / "configs/own/mask_rcnn.yaml")
    options = ["MODEL.DEVICE", "cpu", "INPUT.CROP.ENABLED", "True", "INPUT.CROP.SIZE", "[0.6, 0.6]"]
    cfg = setup_cfg(argparse.Namespace(config_file=file, opts=options, data=str(case)))
    mapper = build_train_mapper(cfg)
    records = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    samples = [mapper(record) for record in records for _ in range(4)]
    assert max(len(sample["instances"]) for sample in samples) == 2
    assert min(len(sample["instances"]) for sample in samples) == 0  # crowd regions only
    for sample in samples:
        found = sample["instances"]
        boxes = found.gt_masks.get_bounding_boxes().tensor
        assert torch.equal(boxes, found.gt_boxes.tensor)
