"""The images with small objects: what the annotations say is what is drawn."""

import json

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

from ccsa.data.checks.own import check_folder
from ccsa.data.folder import read_coco_files
from ccsa.data.records import rle_of_polygons
from ccsa.data.synthetic.small_objects import CLASSES, draw_image, write_small_objects


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "small_objects"
    write_small_objects(folder, {"train": 2, "val": 1}, size=600)
    return folder


def test_the_files_have_no_problems(folder):
    annotations = folder / "annotations"
    data = read_coco_files(
        annotations / "instances_train.json",
        folder / "train",
        annotations / "instances_val.json",
        folder / "val",
    )
    assert data.classes == CLASSES and [len(s) for s in data.splits.values()] == [2, 1]
    assert [str(p) for p in check_folder(data).problems if p.severity == "error"] == []


def test_objects_have_about_twelve_pixels_and_do_not_touch(folder):
    content = json.loads((folder / "annotations" / "instances_train.json").read_text())
    assert len(content["annotations"]) == 2 * round(90 * 0.2**2)
    for entry in content["annotations"]:
        assert min(entry["bbox"][2:]) > 6 and max(entry["bbox"][2:]) < 14.1
    assert Image.open(folder / "train" / "000001.jpg").size == (600, 600)


def test_an_object_is_drawn_where_its_polygon_is():
    import pycocotools.mask as coco_mask

    image, objects = draw_image(np.random.default_rng(1), 600)
    for entry in objects:
        mask = coco_mask.decode(rle_of_polygons(entry["segmentation"], (600, 600))).astype(bool)
        x, y, w, h = (int(v) for v in entry["bbox"])
        around = np.zeros((600, 600), bool)
        around[max(0, y - 3) : y + h + 4, max(0, x - 3) : x + w + 4] = True
        assert mask.sum() == pytest.approx(entry["area"], rel=0.25)
        difference = image[mask].mean(0) - image[around & ~mask].mean(0)
        assert np.abs(difference).max() > 20


def test_the_same_seed_gives_the_same_image():
    one, two, other = (draw_image(np.random.default_rng(seed), 200)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_the_dataset_is_registered():
    metadata = MetadataCatalog.get("small_objects_val")
    assert metadata.thing_classes == CLASSES and metadata.evaluator_type == "coco"
