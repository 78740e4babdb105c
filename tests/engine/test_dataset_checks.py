"""Checks of registered datasets before a run: JSON, fields, classes, evaluators, records."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.data.datasets.coco import load_sem_seg
from detectron2.data.datasets.coco_panoptic import register_coco_panoptic_separated
from detectron2.structures import BoxMode
from PIL import Image
from support.refusals import message

from ccsa.data.problems import KINDS
from ccsa.engine.checks import check_run
from ccsa.engine.setup import setup_cfg

OWN = Path(__file__).parents[1] / "vectors" / "own_data"
DETECTOR, SEMANTIC, PANOPTIC = "mask_rcnn", "ccnet", "panoptic_fpn"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CCSA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def catalog():
    """Remove the datasets that a test registers."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.pop(name)
        for metadata in [m for m in MetadataCatalog.list() if m.startswith(name)]:
            MetadataCatalog.pop(metadata)


def check(root, config, train, test, *options):
    """Check a run on registered datasets."""
    words = ["MODEL.DEVICE", "cpu", "DATASETS.TRAIN", train, "DATASETS.TEST", test, *options]
    args = argparse.Namespace(
        config_file=str(root / f"configs/own/{config}.yaml"),
        opts=[str(word) for word in words],
        num_gpus=1,
        num_machines=1,
        eval_only=False,
        resume=False,
    )
    check_run(setup_cfg(args), args)


def things(count):
    return ("MODEL.ROI_HEADS.NUM_CLASSES", count)


def register(case, **files):
    """Register JSON files of a case as plain COCO instances."""
    for name, file in files.items():
        folder = OWN / case / ("val" if file == "val.json" else "train")
        register_coco_instances(f"own_{name}", {}, str(OWN / case / file), str(folder))


@pytest.mark.usefixtures("catalog")
class TestCases:
    """The cases that are registered in Python."""

    def test_tutorial_registration_without_evaluator(self, root, capsys):
        case = OWN / "tutorial_registration_without_evaluator"
        for split in ("train", "val"):

            def load(split=split):
                name = f"tutorial_{split}"
                return load_coco_json(str(case / f"{split}.json"), str(case / split), name)

            DatasetCatalog.register(f"tutorial_{split}", load)
            MetadataCatalog.get(f"tutorial_{split}").set(thing_classes=["a", "b"])
        check(root, DETECTOR, ("tutorial_train",), ("tutorial_val",), *things(2))
        assert "error" not in capsys.readouterr().out

    def test_two_train_sets_with_other_categories(self, root):
        register(
            "two_train_sets_with_other_categories",
            two_train="train.json",
            two_other="other.json",
            two_val="val.json",
        )
        text = message(
            check, root, DETECTOR, ("own_two_train", "own_two_other"), ("own_two_val",), *things(2)
        )
        assert "own_two_train" in text and "own_two_other" in text and "categories" in text

    def test_own_panoptic_without_metadata(self, root):
        case = OWN / "own_panoptic_without_metadata"
        for split in ("train", "val"):
            places = (case / split, case / f"pan_{split}", case / f"pan_{split}.json")
            places += (case / f"stuff_{split}", case / f"{split}.json")
            register_coco_panoptic_separated(f"own_{split}_pan", {}, *map(str, places))
        names = (("own_train_pan_separated",), ("own_val_pan_separated",))
        text = message(check, root, PANOPTIC, *names, *things(2))
        assert "own_val_pan_separated" in text and "stuff_classes" in text

    def test_own_classes_under_coco_names(self, root):
        case = OWN / "own_classes_under_coco_names"
        register("own_classes_under_coco_names", coco_like="train.json")
        classes = MetadataCatalog.get("coco_2017_train").thing_classes
        MetadataCatalog.get("own_coco_like").set(thing_classes=list(classes))
        text = message(check, root, DETECTOR, ("own_coco_like",), ("own_coco_like",), *things(80))
        assert str(case / "train.json") in text and "--data" in text
        assert "2 classes (a, b)" in text and len(text) < 600


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("bbox_as_text", ["train.json", "annotation 4", "000002.jpg", "'bbox' is"]),
        ("category_id_as_text", ["train.json", "'category_id' is '1'", "--data"]),
    ],
)
def test_a_malformed_json_is_reported_before_detectron2_loads_it(root, case, words):
    register(case, bad="train.json", val="val.json")
    text = message(check, root, DETECTOR, ("own_bad",), ("own_val",), *things(2))
    assert all(word in text for word in words), text


@pytest.mark.usefixtures("catalog")
def test_a_head_with_another_number_of_classes_is_refused(root):
    register("rle_under_polygon_format", n_train="train.json", n_val="val.json")
    text = message(check, root, DETECTOR, ("own_n_train",), ("own_n_val",), *things(3))
    assert "MODEL.ROI_HEADS.NUM_CLASSES is 3" in text and "2 classes (a, b)" in text
    check(root, DETECTOR, ("own_n_train",), ("own_n_val",), *things(2))


@pytest.mark.usefixtures("catalog")
def test_a_problem_can_be_allowed_and_an_unknown_kind_has_a_suggestion(root):
    register("bbox_as_text", w_train="train.json", w_val="val.json")
    names = (("own_w_val",), ("own_w_val",))
    check(root, DETECTOR, *names, *things(2))
    text = message(check, root, DETECTOR, *names, *things(2), "DATASETS.ALLOW", ["invalid_bx"])
    assert "'invalid_bx'" in text and "did you mean invalid_box" in text


def record(folder, **changes):
    """Return a record with one object, with fields changed; None removes a field."""
    Image.new("RGB", (64, 64), (9, 99, 9)).save(folder / "1.png")
    annotation = {
        "bbox": [4, 4, 20, 20],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "segmentation": [[4, 4, 20, 4, 20, 20]],
        "iscrowd": 0,
    }
    result = {"file_name": str(folder / "1.png"), "image_id": 1, "height": 64, "width": 64}
    result["annotations"] = [annotation]
    for key, value in changes.items():
        place = annotation if key in annotation else result
        place.pop(key) if value is None else place.update({key: value})
    return result


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"bbox": [4, 4, 20]}, "invalid_box"),
        ({"bbox": [4, 4, float("nan"), 20]}, "invalid_box"),
        ({"bbox": ["4", "4", "20", "20"]}, "invalid_box"),
        ({"bbox": [20, 4, 4, 20]}, "invalid_box"),
        ({"bbox": None}, "missing_field"),
        ({"bbox_mode": 77}, "wrong_type"),
        ({"category_id": "0"}, "wrong_type"),
        ({"category_id": 5}, "unknown_category"),
        ({"segmentation": [[4, 4, 20]]}, "invalid_polygon"),
        ({"segmentation": "mask"}, "wrong_type"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, "rle_size"),
        ({"iscrowd": "no"}, "wrong_type"),
        ({"file_name": None}, "missing_field"),
        ({"file_name": "no/such/file.png"}, "missing_image"),
        ({"height": "64"}, "wrong_type"),
        ({"height": 32}, "size_mismatch"),
        ({"image_id": None}, "missing_field"),
        ({"annotations": "none"}, "wrong_type"),
        ({"sem_seg_file_name": 3}, "wrong_type"),
    ],
    ids=str,
)
def test_records_that_were_registered_in_python_are_validated(root, tmp_path, changes, kind):
    DatasetCatalog.register("own_records", lambda: [record(tmp_path, **changes)])
    MetadataCatalog.get("own_records").set(thing_classes=["a", "b"])
    text = message(check, root, DETECTOR, ("own_records",), ("own_records",), *things(2))
    allowed = KINDS[kind].can_be_allowed
    assert (f"DATASETS.ALLOW \"['{kind}']" if allowed else f"fixed: {kind}") in text, text
    assert len(text) < 500, text


@pytest.mark.usefixtures("catalog")
def test_a_dataset_function_that_fails_is_one_sentence(root):
    def load():
        return [{}["nothing"]]

    DatasetCatalog.register("own_failing", load)
    text = message(check, root, DETECTOR, ("own_failing",), ("own_failing",), *things(2))
    assert "'own_failing' cannot be loaded" in text and "KeyError: 'nothing'" in text


@pytest.mark.usefixtures("catalog")
def test_one_renamed_label_shifts_the_pairs_of_load_sem_seg(root, tmp_path):
    source = OWN / "val_labels_rgb"
    for split in ("train", "train_labels"):
        shutil.copytree(source / split, tmp_path / split)
    (tmp_path / "train_labels/000002.png").rename(tmp_path / "train_labels/000009.png")
    folders = str(tmp_path / "train_labels"), str(tmp_path / "train")
    DatasetCatalog.register("own_shifted", lambda: load_sem_seg(*folders, image_ext="jpg"))
    MetadataCatalog.get("own_shifted").set(stuff_classes=["bg", "a", "b"], ignore_label=255)
    classes = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3)
    text = message(check, root, SEMANTIC, ("own_shifted",), ("own_shifted",), *classes)
    assert "000002.jpg: the image is paired with the label 000003.png" in text


@pytest.mark.usefixtures("catalog")
def test_labels_of_registered_datasets_are_checked(root, tmp_path):
    for name in ("image", "label"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (64, 64), (9, 99, 9)).save(tmp_path / "image/1.jpg")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(tmp_path / "label/1.png")
    folders = str(tmp_path / "label"), str(tmp_path / "image")
    DatasetCatalog.register("own_labels", lambda: load_sem_seg(*folders, image_ext="jpg"))
    MetadataCatalog.get("own_labels").set(stuff_classes=["bg", "a", "b"], ignore_label=255)
    names = (("own_labels",), ("own_labels",))
    options = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3)
    text = message(check, root, SEMANTIC, *names, *options)
    assert str(tmp_path / "label/1.png") in text and "the label contains 7" in text
    text = message(check, root, SEMANTIC, *names, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 9)
    assert "label contains 7" in text


@pytest.mark.usefixtures("catalog")
def test_json_that_is_read_again_is_taken_from_the_cache(root, monkeypatch, tmp_path):
    from ccsa.data.checks import registered

    register("rle_under_polygon_format", c_train="train.json")
    first = registered.check_json("own_c_train")
    monkeypatch.setattr(registered, "CocoReader", None)
    assert list(registered.check_json("own_c_train")) == list(first)
    assert [json.loads(f.read_text())["values"] for f in (tmp_path / "cache/checks").iterdir()]
