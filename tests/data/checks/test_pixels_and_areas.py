"""Faults that only counts show: ranges of intensities, areas of masks, and labels of one class."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image

from ccsa.data.checks.annotations import check_annotations
from ccsa.data.checks.dataset import Checked, check_records
from ccsa.data.problems import KINDS, Problems
from ccsa.errors import UserError


def records(folder, split, values):
    """Write images and return their records."""
    result = []
    for number, pixels in enumerate(values, 1):
        file = folder / f"{split}_{number}.tif"
        Image.fromarray(pixels).save(file)
        height, width = pixels.shape
        result.append({"file_name": str(file), "height": height, "width": width})
    return result


@pytest.mark.parametrize(
    ("value", "kind"), [(1500, None), (5000, "mostly_outside_range"), ("half", "intensity_range")]
)
def test_validation_images_outside_the_range_are_reported(tmp_path, value, kind):
    train = np.full((16, 16), 1000, np.uint16)
    val = np.full((16, 16), 1500 if value == "half" else value, np.uint16)
    if value == "half":
        val[:6] = 5000
    splits = {"train": records(tmp_path, "train", [train]), "val": records(tmp_path, "val", [val])}
    splits["val"][0]["file_name"] = str(tmp_path / "val_1.tif")
    checked = check_records(splits, intensity_range=(0, 2000), cache=False)
    kinds = {"intensity_range", "mostly_outside_range"} & set(checked.problems.kinds())
    assert kinds == ({kind} if kind else set())
    if kind:
        text = next(p.message for p in checked.problems if p.kind == kind)
        assert text.startswith("val: ") and "outside 0 to 2000" in text


def test_values_that_are_not_finite_are_reported(tmp_path):
    pixels = np.ones((16, 16), np.float32)
    pixels[0, :3] = np.nan, np.inf, -np.inf
    splits = {"train": records(tmp_path, "train", [pixels])}
    problems = check_records(splits, intensity_range=(0, 2), cache=False).problems
    assert [p.message for p in problems if p.kind == "not_finite"] == [
        "3 of 256 values are NaN or infinite"
    ]


@pytest.mark.parametrize(("area", "count"), [(100.0, 0), (60.0, 0), (10.0, 4), (1000.0, 4)])
def test_areas_that_contradict_the_masks_are_reported(area, count):
    annotation = {
        "bbox": [10, 10, 10, 10],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "area": area,
        "segmentation": [[10, 10, 20, 10, 20, 20, 10, 20]],
    }
    good = {**annotation, "area": 100.0}
    record = {"file_name": "1.png", "height": 50, "width": 50}
    problems = Problems()
    check_annotations("train", [{**record, "annotations": [annotation] * 4 + [good] * 2}], problems)
    assert problems.counts["area_mismatch"] == count
    few = Problems()
    check_annotations("train", [{**record, "annotations": [annotation] + [good] * 2}], few)
    assert not few.counts["area_mismatch"]


def test_labels_of_0_and_255_with_one_class_are_an_error(tmp_path):
    train = records(tmp_path, "train", [np.full((16, 16), 7, np.uint8)])
    label = tmp_path / "label.png"
    Image.fromarray(np.eye(16, dtype=np.uint8) * np.uint8(255)).save(label)
    train[0]["sem_seg_file_name"] = str(label)
    problems = check_records({"train": train}, stuff=["cell"], cache=False).problems
    assert {"ignored_class", "single_class"} <= set(problems.kinds("error"))


@pytest.mark.parametrize("classes", [2, 3])
def test_single_labels_of_0_and_255_are_reported_for_two_classes(tmp_path, classes):
    """255 is read as 'ignore', so the objects of these files vanish."""
    train = records(tmp_path, "train", [np.full((16, 16), n, np.uint8) for n in range(7)])
    usual = [[0, 1], [0, 1, 255], [1, 255], [0]]
    for number, values in enumerate([*usual, [0, 255], [0, 255], [0, classes - 1]]):
        label = tmp_path / f"train_{number + 1}.png"
        Image.fromarray(np.resize(np.uint8(values), (16, 16))).save(label)
        train[number]["sem_seg_file_name"] = str(label)
    names = ["background", "cell", "dirt"][:classes]
    problems = check_records({"train": train}, stuff=names, cache=False).problems
    found = [p for p in problems if p.kind == "ignored_objects"]
    expected = ["train_5.png", "train_6.png"] if classes == 2 else []
    assert [Path(p.file).name for p in found] == expected
    assert all("only 0 and 255" in p.message for p in found)
    assert not problems.stopping()
    mapped = [{**record, "label_mapping": {255: 1}} for record in train]
    problems = check_records({"train": mapped}, stuff=names, cache=False).problems
    assert "ignored_objects" not in problems.kinds()


def test_the_table_names_the_folder_of_a_file():
    problems = Problems()
    problems.add("tiny_image", "/data/train/000002.png", "small")
    problems.add("tiny_image", "/data/val/000002.png", "small")
    problems.add("class_without_objects", "/data", "class a has no pixel")
    problems.add("class_without_objects", "/data", "class b has no pixel")
    table = Checked(problems).table()
    assert "class a has" in table and "class b has" in table
    assert "train/000002.png" in table and "val/000002.png" in table and "data/" not in table


@pytest.mark.parametrize("kind", [k for k in KINDS if KINDS[k].severity == "error"])
def test_allowing_is_only_offered_where_training_works(kind):
    problems = Problems()
    problems.add(kind, "file", "message")
    with pytest.raises(UserError, match=kind) as error:
        problems.check()
    assert ("DATASETS.ALLOW \"['" in str(error.value)) == KINDS[kind].can_be_allowed
