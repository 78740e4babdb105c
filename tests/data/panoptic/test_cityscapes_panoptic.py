"""Cityscapes for Panoptic FPN: files made from the panoptic files, value by value, and loading."""

import json
import os
import time

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from support import panoptic_files as files

from ccsa.data.checks.panoptic import check_panoptic_split
from ccsa.data.checks.semantic import check_family
from ccsa.data.panoptic import FAMILIES, cityscapes, instances
from ccsa.data.panoptic.instances import run_lengths
from ccsa.data.preparation.plans import execute
from ccsa.errors import UserError
from ccsa.evaluation import build_evaluator
from ccsa.utils.files import STALE_AFTER

NAMES = [f"cityscapes_fine_panoptic_{split}_separated" for split in ("train", "val")]


@pytest.fixture
def published(tmp_path):
    files.cityscapes(tmp_path)
    return tmp_path


def prepare(root):
    return execute(FAMILIES["cityscapes_panoptic"].plan(root), "labels")


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """Return an empty root; only its splits for Panoptic FPN are registered with Detectron2."""
    monkeypatch.setattr(DatasetCatalog, "data", {})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    cityscapes.register_all(tmp_path)
    return tmp_path


def contents(root):
    """Return bytes and times, so that a file rewritten with the same bytes is noticed too."""
    found = (path for path in root.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def of_split(root, split):
    return json.loads(
        (root / f"cityscapes/gtFine/cityscapes_panoptic_instances_{split}.json").read_text()
    )


def test_labels_are_0_on_things_and_count_the_stuff(published):
    prepare(published)
    folder = published / "cityscapes/gtFine/cityscapes_panoptic_stuff_val"
    with Image.open(folder / "ulm_000000_000019_gtFine_stuff.png") as made:
        assert made.mode == "L"
        labels = np.array(made)
    wanted = np.full((24, 32), 11)  # sky, the last of 11 stuff classes
    wanted[8:] = 1  # road, the first one
    wanted[10:16, 2:10] = wanted[10:16, 12:18] = wanted[20:22, 12:14] = wanted[0:9, 0:2] = 0
    wanted[18:23, 4:9] = 0  # a group consists of things too
    wanted[23:] = 255
    np.testing.assert_array_equal(labels, wanted)


def test_instances_are_those_drawn_and_groups_stay_groups(published):
    prepare(published)
    content = of_split(published, "val")
    (image,) = content["images"]
    assert image == {
        "id": "ulm_000000_000019",
        "file_name": "ulm/ulm_000000_000019_leftImg8bit.png",
        "height": 24,
        "width": 32,
    }
    ids = files.street(things=True)
    wanted = {  # category, iscrowd, area, box (x, y, w, h)
        25: (25, 1, 25, [4, 18, 5, 5]),
        24003: (24, 0, 18, [0, 0, 2, 9]),
        26000: (26, 0, 48, [2, 10, 8, 6]),
        26001: (26, 0, 40, [12, 10, 6, 12]),
    }
    assert len(content["annotations"]) == len(wanted)
    for found, (number, (category, iscrowd, area, box)) in zip(
        content["annotations"], wanted.items(), strict=True
    ):
        assert (found["category_id"], found["iscrowd"], found["area"]) == (category, iscrowd, area)
        assert found["bbox"] == box and found["image_id"] == image["id"]
        np.testing.assert_array_equal(coco_mask.decode(found["segmentation"]), ids == number)
    names = {c["id"]: c["name"] for c in content["categories"]}
    assert names == {c["id"]: c["name"] for c in CITYSCAPES_CATEGORIES if c["isthing"]}


def test_ids_of_instances_differ_and_images_without_things_are_there(published):
    prepare(published)
    content = of_split(published, "train")
    numbers = [annotation["id"] for annotation in content["annotations"]]
    assert len(content["images"]) == 3 and numbers == list(range(1, 9))
    empty = {i["id"] for i in content["images"]} - {a["image_id"] for a in content["annotations"]}
    assert empty == {"aachen_000001_000019"}


@pytest.mark.parametrize("size", [(7, 5), (1, 6), (6, 1), (1, 1)])
def test_run_lengths_are_those_of_pycocotools(size):
    rng = np.random.default_rng(0)
    for _ in range(20):
        ids = rng.integers(0, 4, size).astype(np.uint32)
        masks = run_lengths(ids, range(1, 6))
        assert masks.keys() == set(np.unique(ids)) - {0}
        for number, mask in masks.items():
            assert mask == coco_mask.encode(np.asfortranarray(ids == number, np.uint8))


def test_a_second_run_changes_nothing_and_the_source_is_untouched(published):
    source = contents(published)
    first = prepare(published)
    made = contents(published)
    assert (first.written, first.kept) == (6, 0) and len(made) == len(source) + 6
    assert source.items() <= made.items()
    second = prepare(published)
    assert (second.written, second.kept) == (0, 6)
    assert contents(published) == made


def test_interrupted_it_leaves_whole_files_and_goes_on(published, monkeypatch):
    read, seen = instances.read_segment_ids, []

    def stop_at_the_third(path):
        seen.append(path)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(instances, "read_segment_ids", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            prepare(published)
    fine = published / "cityscapes/gtFine"
    assert not list(fine.glob("*instances*")) and not list(fine.rglob("*.partial*"))
    killed = fine / ".cityscapes_panoptic_instances_train.1.partial.json"
    killed.write_text("half")
    then = time.time() - STALE_AFTER - 10
    os.utime(killed, (then, then))
    outcome = prepare(published)
    assert (outcome.written, outcome.kept) == (2, 4) and not killed.exists()
    assert len(of_split(published, "train")["images"]) == 3


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_segment_that_the_png_does_not_show_is_named(published):
    path = published / "cityscapes/gtFine/cityscapes_panoptic_val.json"
    lost = {"id": 26007, "category_id": 26, "area": 9, "iscrowd": 0}
    edit(path, lambda content: content["annotations"][0]["segments_info"].append(lost))
    with pytest.raises(UserError, match=r"ulm_.*_panoptic.png does not show segment 26007, which"):
        prepare(published)
    assert not list(path.parent.glob("*instances_val*"))


def test_one_split_is_enough(published):
    (published / "cityscapes/gtFine/cityscapes_panoptic_train.json").unlink()
    plan = FAMILIES["cityscapes_panoptic"].plan(published)
    assert execute(plan, "labels").written == 2
    assert "cityscapes_panoptic_train.json" in plan.notes[0]


def problems(root):
    reports, _ = check_family(FAMILIES["cityscapes_panoptic"], root, check_panoptic_split)
    return [(report.split.name, *trouble) for report in reports for trouble in report.problems]


def test_the_check_says_what_is_not_made_and_what_is_wrong(published):
    found = problems(published)
    assert {name for name, _, _ in found} == set(NAMES) and len(found) == 4
    assert all(
        text.endswith("prepare_dataset.py cityscapes_panoptic makes it") for *_, text in found
    )
    prepare(published)
    assert problems(published) == []
    label = next(published.rglob("ulm_*_gtFine_stuff.png"))
    with Image.open(label) as image:
        values = np.array(image)
    values[0, 31] = 1  # sky is road
    Image.fromarray(values).save(label)
    ((name, kind, text),) = problems(published)
    assert (name, kind) == (NAMES[1], "bad labels") and "in 1 pixels" in text


# Loading


def test_it_loads_with_classes_in_place_of_category_ids(catalog):
    files.cityscapes(catalog)
    prepare(catalog)
    train, val = (DatasetCatalog.get(name) for name in NAMES)
    assert [len(record["annotations"]) for record in train] == [4, 0, 4]
    for record in (*train, *val):
        for key in ("file_name", "sem_seg_file_name"):
            assert os.path.isfile(record[key])
            assert os.path.basename(record[key]).startswith(record["image_id"])
    things = MetadataCatalog.get(NAMES[1]).thing_classes
    found = [(things[a["category_id"]], a["iscrowd"]) for a in val[0]["annotations"]]
    assert found == [("rider", 1), ("person", 0), ("car", 0), ("car", 0)]
    assert all(a["bbox_mode"] == BoxMode.XYWH_ABS for a in val[0]["annotations"])


def test_classes_and_category_ids_belong_together():
    metadata = MetadataCatalog.get(NAMES[0])
    stuff = metadata.stuff_dataset_id_to_contiguous_id
    things = metadata.thing_dataset_id_to_contiguous_id
    for category in CITYSCAPES_CATEGORIES:
        number, name, color = category["id"], category["name"], list(category["color"])
        kind, ids = ("thing", things) if category["isthing"] else ("stuff", stuff)
        assert metadata.get(f"{kind}_classes")[ids[number]] == name
        assert metadata.get(f"{kind}_colors")[ids[number]] == color
    assert sorted(things.values()) == list(range(8)) and sorted(stuff.values()) == list(range(12))
    assert metadata.stuff_classes[0] == "things" and stuff[0] == 0


def test_the_truth_as_a_prediction_has_full_marks(catalog, tmp_path):
    """Panoptic quality, mIoU and AP read the same metadata and files."""
    files.cityscapes(catalog)
    prepare(catalog)
    evaluator = build_evaluator(NAMES[1], tmp_path / "results")
    evaluator.reset()
    (record,) = DatasetCatalog.get(NAMES[1])
    with Image.open(record["sem_seg_file_name"]) as image:
        labels = torch.tensor(np.array(image).astype(int))
    single = [a for a in record["annotations"] if not a["iscrowd"]]
    found = Instances((24, 32))
    found.pred_classes = torch.tensor([a["category_id"] for a in single])
    found.scores = torch.ones(len(single))
    masks = [coco_mask.decode(a["segmentation"]) for a in single]
    found.pred_masks = torch.tensor(np.array(masks)).bool()
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in single]
    found.pred_boxes = Boxes(torch.tensor(boxes))
    stuff = torch.where(labels == 255, 0, labels)
    scores = torch.nn.functional.one_hot(stuff, 12).permute(2, 0, 1).float()
    combined = combine_semantic_and_instance_outputs(found, stuff, 0.5, 1, 0.5)
    output = {"sem_seg": scores, "instances": found, "panoptic_seg": combined}
    evaluator.process([record], [output])
    results = evaluator.evaluate()
    assert results["panoptic_seg"]["PQ"] == pytest.approx(100)
    assert results["sem_seg"]["mIoU"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP-car"] == pytest.approx(100)


def test_what_is_not_there_or_not_prepared_says_what_to_do(catalog):
    with pytest.raises(UserError) as error:
        DatasetCatalog.get(NAMES[0])
    assert str(catalog / "cityscapes/leftImg8bit/train") in str(error.value)
    assert "csCreatePanopticImgs" in str(error.value)
    files.cityscapes(catalog)
    command = "run python tools/prepare_dataset.py cityscapes_panoptic"
    with pytest.raises(UserError, match=f"not prepared: .*stuff_train does not exist; {command}"):
        DatasetCatalog.get(NAMES[0])
    prepare(catalog)
    (catalog / "cityscapes/gtFine/cityscapes_panoptic_instances_train.json").unlink()
    with pytest.raises(UserError, match=f"not prepared: .*train.json does not exist; {command}"):
        DatasetCatalog.get(NAMES[0])
