"""The digits dataset as Detectron2 loads it, under its own names and under the names of COCO."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image
from pycocotools.coco import COCO

from ccsa.data.synthetic.digit_scenes import GROUNDS, SIZE
from ccsa.data.synthetic.digits_as_coco import write_as_coco
from ccsa.data.synthetic.storage import VERSION_FILE

PANOPTIC = "_panoptic_separated"
KINDS = ("", PANOPTIC, "_sem_seg")
NAMES = [f"digits_{s}{kind}" for s in ("train", "val") for kind in KINDS]


def labels(folder, kind, split, image_id):
    return np.asarray(Image.open(folder / f"{kind}_{split}" / f"{image_id:06d}.png")).astype(int)


def read_coco(folder, split):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(folder / "annotations" / f"instances_{split}.json"))


# The files


LOADER = """
import json, sys
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from ccsa.data.synthetic import digits
from ccsa.engine.checks import check_dataset

digits.COUNTS.update(train=3, val=2)

def describe(record):
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.MASK_ON", True, "INPUT.MIN_SIZE_TRAIN", (160,)])
    cfg.INPUT.RANDOM_FLIP = "none"
    mapped = DatasetMapper(cfg, is_train=True)(record)
    described = {"image": list(mapped["image"].shape)}
    if "instances" in mapped:
        instances = mapped["instances"]
        described["classes"] = instances.gt_classes.tolist()
        described["boxes"] = instances.gt_boxes.tensor.tolist()
        described["masks"] = len(instances.gt_masks)
    if "sem_seg" in mapped:
        described["sem_seg"] = sorted(mapped["sem_seg"].unique().tolist())
        described["sem_seg_size"] = list(mapped["sem_seg"].shape)
    return described

report = {}
for name in sys.argv[1:]:
    check_dataset(name)
    records = DatasetCatalog.get(name)
    report[name] = {"records": records, "first": describe(records[0])}
for name in ("coco_2017_train", "coco_2017_val"):
    check_dataset(name)
    records = DatasetCatalog.get(name)
    report[name] = {
        "records": records,
        "first": describe(records[0]),
        "classes": MetadataCatalog.get(name).thing_classes,
    }
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Return a folder of datasets with the layout of COCO; the digits are written on first use."""
    root = tmp_path_factory.mktemp("datasets")
    write_as_coco(root, train=4, val=3)
    return root


@pytest.fixture(scope="module")
def loaded(datasets):
    """Return what a new process reads through Detectron2's catalog."""
    done = subprocess.run(
        [sys.executable, "-c", LOADER, *NAMES],
        env={**os.environ, "OMP_NUM_THREADS": "1", "DETECTRON2_DATASETS": str(datasets)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_all_names_are_registered():
    types = dict(zip(KINDS, ("coco", "coco_panoptic_seg", "sem_seg"), strict=True))
    for name in NAMES:
        assert name in DatasetCatalog.list()
        metadata = MetadataCatalog.get(name)
        kind = name.removeprefix("digits_train").removeprefix("digits_val")
        assert metadata.evaluator_type == types[kind]
        if kind != "_sem_seg":
            assert metadata.thing_classes == [str(digit) for digit in range(10)]
            assert len(metadata.thing_colors) == 10
        if kind:
            assert metadata.ignore_label == 255
            assert len(metadata.stuff_classes) == len(metadata.stuff_colors)
    assert MetadataCatalog.get("digits_val_sem_seg").stuff_classes[10:] == list(GROUNDS)
    assert MetadataCatalog.get(f"digits_val{PANOPTIC}").stuff_classes[1:] == list(GROUNDS)


def test_digits_load_under_the_datasets_folder(loaded, datasets):
    root = datasets
    assert (root / "digits" / VERSION_FILE).is_file()
    for name in NAMES:
        records = loaded[name]["records"]
        assert len(records) == (3 if "train" in name else 2), name
        assert all(Path(r["file_name"]).parents[1] == root / "digits" for r in records)
        assert loaded[name]["first"]["image"] == [3, SIZE, SIZE]


@pytest.mark.parametrize("split", ["train", "val"])
def test_digits_instances_pass_the_mapper(loaded, datasets, split):
    coco = read_coco(datasets / "digits", split)
    for name in (f"digits_{split}", f"digits_{split}{PANOPTIC}"):
        record, first = loaded[name]["records"][0], loaded[name]["first"]
        found = coco.imgToAnns[record["image_id"]]
        assert first["classes"] == [a["category_id"] - 1 for a in found]
        assert first["masks"] == len(found)
        for (x0, y0, x1, y1), annotation in zip(first["boxes"], found, strict=True):
            x, y, w, h = annotation["bbox"]
            assert np.allclose([x0, y0, x1, y1], [x, y, x + w, y + h], atol=1.5)


@pytest.mark.parametrize("split", ["train", "val"])
def test_digits_semantics_pass_the_mapper(loaded, datasets, split):
    for kind, file in (("_sem_seg", "sem_seg"), (PANOPTIC, "panoptic_stuff")):
        first = loaded[f"digits_{split}{kind}"]["first"]
        written = labels(datasets / "digits", file, split, 1)
        assert first["sem_seg"] == np.unique(written).tolist()
        assert first["sem_seg_size"] == [SIZE, SIZE]
    assert "sem_seg" not in loaded[f"digits_{split}"]["first"]
    assert "classes" not in loaded[f"digits_{split}_sem_seg"]["first"]


@pytest.mark.parametrize(("split", "count"), [("train", 4), ("val", 3)])
def test_digit_scenes_load_as_coco(loaded, datasets, split, count):
    coco = loaded[f"coco_2017_{split}"]
    assert len(coco["records"]) == count and len(coco["classes"]) == 80
    assert coco["first"]["image"] == [3, SIZE, SIZE] and coco["first"]["masks"] > 0
    names = [category["name"] for category in COCO_CATEGORIES if category["isthing"]]
    digit_records = loaded[f"digits_{split}"]["records"]
    for record, digit_record in zip(coco["records"], digit_records, strict=False):
        assert Path(record["file_name"]).parent == datasets / "coco" / f"{split}2017"
        same = Path(digit_record["file_name"]).read_bytes()
        assert Path(record["file_name"]).read_bytes() == same
        for got, wanted in zip(record["annotations"], digit_record["annotations"], strict=True):
            assert coco["classes"][got["category_id"]] == names[wanted["category_id"]]
            assert got["segmentation"] == wanted["segmentation"]
    assert {p.name for p in (datasets / "coco").iterdir()} == {
        "annotations",
        *(f"{kind}{split}2017" for kind in ("", "panoptic_") for split in ("train", "val")),
    }
