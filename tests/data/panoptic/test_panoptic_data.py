"""Panoptic datasets on disk: every kind of problem is found; the labels of Panoptic FPN."""

import json
import re
import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco_panoptic import register_coco_panoptic_separated
from PIL import Image
from support import layouts
from support import panoptic_files as files

from ccsa.data.checks.panoptic import PANOPTIC_KINDS, check_panoptic_split
from ccsa.data.checks.report import examples
from ccsa.data.checks.semantic import check_family
from ccsa.data.formats.panoptic_json import read_panoptic_json
from ccsa.data.panoptic import FAMILIES, read_segment_ids, relabel_segments, write_segment_ids
from ccsa.data.panoptic.coco import COCO_LABELS
from ccsa.data.preparation.plans import execute
from ccsa.data.synthetic.digits import write_digits
from ccsa.errors import UserError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    write_digits(root / "digits", {"train": 1, "val": 3})
    return root


@pytest.fixture
def digits(written, tmp_path):
    shutil.copytree(written / "digits", tmp_path / "digits")
    return tmp_path / "digits"


@pytest.fixture
def coco(digits):
    """Return digits in the folders of COCO, with its categories 1..11 and 92, 93 and 95."""
    root = digits.parent / "coco"
    (root / "annotations").mkdir(parents=True)
    numbers = {**{i: i for i in range(1, 11)}, 11: 92, 12: 93, 13: 95}
    for split in ("train", "val"):
        for kind in ("", "panoptic_"):
            shutil.move(digits / f"{kind}{split}", root / f"{kind}{split}2017")
        for kind in ("instances", "panoptic"):
            content = json.loads((digits / "annotations" / f"{kind}_{split}.json").read_text())
            for entry in content["annotations"]:
                for segment in entry.get("segments_info", [entry]):
                    segment["category_id"] = numbers[segment["category_id"]]
            for category in content["categories"]:
                category["id"] = numbers[category["id"]]
            place = root / "annotations" / f"{kind}_{split}2017.json"
            place.write_text(json.dumps(content))
    return root


def report_of(root, name="digits_panoptic", index=1):
    reports, _ = check_family(FAMILIES[name], root, check_panoptic_split)
    return reports[index]


def problems(root, **options) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, text in report_of(root, **options).problems:
        found.setdefault(kind, []).append(text)
    return found


def test_good_datasets_have_no_trouble(digits, tmp_path):
    files.cityscapes(tmp_path)
    execute(FAMILIES["cityscapes_panoptic"].plan(tmp_path), "labels")
    for name, images in (("digits_panoptic", [1, 3]), ("cityscapes_panoptic", [3, 1, 3, 1])):
        reports, notes = check_family(FAMILIES[name], tmp_path, check_panoptic_split)
        assert examples(reports) == [] and notes == []
        assert [report.images for report in reports] == images
        assert [report.labels for report in reports] == images
        assert reports[0].row()[4:] == [0] * len(PANOPTIC_KINDS)


def segments(content):
    return content["annotations"][1]["segments_info"]


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


DAMAGED = {
    "image": (
        lambda d: (d / "val/000002.jpg").unlink(),
        "missing",
        "image .*000002.jpg does not exist",
    ),
    "png": (
        lambda d: (d / "panoptic_val/000002.png").unlink(),
        "missing",
        "PNG .*000002.png does not exist",
    ),
    "stuff": (
        lambda d: (d / "panoptic_stuff_val/000002.png").unlink(),
        "missing",
        "label .*panoptic_stuff_val/000002.png does not exist",
    ),
    "instances": (
        lambda d: (d / "annotations/instances_val.json").unlink(),
        "missing",
        "instances_val.json does not exist",
    ),
    "annotation": (
        lambda d: edit(d / "annotations/panoptic_val.json", lambda c: c["annotations"].pop(1)),
        "missing",
        "no annotation of .*000002.png",
    ),
    "corrupt image": (
        lambda d: (d / "val/000002.jpg").write_bytes(b"half"),
        "unreadable",
        "image .*000002.jpg",
    ),
    "corrupt png": (
        lambda d: (d / "panoptic_val/000002.png").write_bytes(b"half"),
        "unreadable",
        "cannot read .*panoptic_val/000002.png",
    ),
    "grey png": (
        lambda d: layouts.write_gray(
            d / "panoptic_val/000002.png", layouts.spread([0], (160, 160))
        ),
        "unreadable",
        "mode L",
    ),
    "json": (
        lambda d: (d / "annotations/panoptic_val.json").write_text("{"),
        "unreadable",
        "cannot read .*panoptic_val.json",
    ),
    "sizes": (
        lambda d: layouts.write_photo(d / "val/000002.jpg", (160, 150)),
        "sizes differ",
        "000002.jpg is 150x160, .*000002.png is 160x160",
    ),
    "id": (
        lambda d: edit(
            d / "annotations/panoptic_val.json",
            lambda c: segments(c).append({"id": 9000, "category_id": 1, "area": 5}),
        ),
        "bad ids",
        "image 2 .*segment 9000 is in the JSON but not in the PNG",
    ),
    "category": (
        lambda d: edit(
            d / "annotations/panoptic_val.json", lambda c: segments(c)[0].update(category_id=99)
        ),
        "bad categories",
        "image 2 .*unknown category 99",
    ),
    "area": (
        lambda d: edit(
            d / "annotations/panoptic_val.json", lambda c: segments(c)[0].update(area=7)
        ),
        "bad areas",
        r"image 2 .*has the area 7 in the JSON and \d+ pixels",
    ),
    "stuff labels": (
        lambda d: layouts.write_gray(d / "panoptic_stuff_val/000002.png", np.full((160, 160), 2)),
        "bad labels",
        r"panoptic_stuff_val/000002.png differs from .* in [\d,]+ pixels",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_trouble_is_counted_and_named(name, digits):
    spoil, kind, pattern = DAMAGED[name]
    spoil(digits)
    found = problems(digits.parent)
    assert any(re.search(pattern, text) for text in found[kind]), found
    other = {k for k in found if k != kind}
    # An unknown category has no label either.
    assert other <= ({"bad labels"} if name == "category" else set()), found


def test_cityscapes_files_are_looked_for_where_detectron2_does(tmp_path):
    files.cityscapes(tmp_path)
    base = tmp_path / "cityscapes"
    stem = "ulm/ulm_000000_000019"
    (base / f"leftImg8bit/val/{stem}_leftImg8bit.png").unlink()
    (base / f"gtFine/val/{stem}_gtFine_labelTrainIds.png").unlink()
    found = problems(tmp_path, name="cityscapes_panoptic")
    assert len(found.pop("missing")) == 2 and not found


def test_what_is_not_there_says_how_to_get_it(tmp_path):
    for name, words in (
        ("coco_panoptic", ["panoptic_train2017.json", "panoptic_annotations_trainval2017.zip"]),
        ("cityscapes_panoptic", ["cityscapes_panoptic_train.json", "csCreatePanopticImgs"]),
        ("digits_panoptic", ["digits", "check_dataset.py digits_panoptic"]),
    ):
        with pytest.raises(UserError) as error:
            check_family(FAMILIES[name], tmp_path, check_panoptic_split)
        assert all(word in str(error.value) for word in words), error.value


# The labels of Panoptic FPN


def test_the_labels_are_those_of_detectron2():
    """Things have the label 0 and stuff starts at 1: the contiguous ids of the metadata."""
    metadata = MetadataCatalog.get("coco_2017_val_panoptic_separated")
    stuff = metadata.stuff_dataset_id_to_contiguous_id
    assert len(COCO_LABELS) == 133 and set(COCO_LABELS.values()) == set(range(54))
    for number, label in COCO_LABELS.items():
        thing = number in metadata.thing_dataset_id_to_contiguous_id
        assert label == (0 if thing else stuff[number])


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_coco_is_prepared_as_the_digits_are_written(coco, digits):
    before = contents(coco)
    assert execute(FAMILIES["coco_panoptic"].plan(coco.parent), "labels").written == 4
    # Grounds 1, 2 and 3 have the ids 92, 93 and 95 of COCO, its first three stuff classes.
    order = [n for n in sorted(COCO_LABELS) if COCO_LABELS[n]]
    assert order[:3] == [92, 93, 95]
    for split in ("train", "val"):
        for path in (digits / f"panoptic_stuff_{split}").iterdir():
            made = coco / f"panoptic_stuff_{split}2017" / path.name
            np.testing.assert_array_equal(np.array(Image.open(made)), np.array(Image.open(path)))
            assert Image.open(made).mode == "L"
    assert {p: d for p, d in contents(coco).items() if p in before} == before


def test_a_second_run_makes_what_is_not_there(coco):
    plan = FAMILIES["coco_panoptic"].plan
    execute(plan(coco.parent), "labels")
    lost = coco / "panoptic_stuff_val2017/000002.png"
    half = coco / "panoptic_stuff_val2017/000003.png"
    whole = lost.read_bytes(), half.read_bytes()
    lost.unlink()
    half.write_bytes(whole[1][:50])
    outcome = execute(plan(coco.parent), "labels")
    assert (outcome.written, outcome.kept) == (2, 2)
    assert (lost.read_bytes(), half.read_bytes()) == whole


def test_one_split_is_enough(coco):
    (coco / "annotations/panoptic_train2017.json").unlink()
    plan = FAMILIES["coco_panoptic"].plan(coco.parent)
    assert len(plan.jobs) == 3
    assert "panoptic_train2017.json" in plan.notes[0]


def test_a_prepared_coco_is_good_and_loads(coco):
    (text,) = problems(coco.parent, name="coco_panoptic")["missing"]
    assert "panoptic_stuff_val2017 does not exist; python tools/prepare_dataset.py" in text
    execute(FAMILIES["coco_panoptic"].plan(coco.parent), "labels")
    reports, _ = check_family(FAMILIES["coco_panoptic"], coco.parent, check_panoptic_split)
    assert examples(reports) == [] and [r.images for r in reports] == [1, 3]
    try:
        register_coco_panoptic_separated(
            *("coco_copy", {}, str(coco / "val2017"), str(coco / "panoptic_val2017")),
            str(coco / "annotations/panoptic_val2017.json"),
            str(coco / "panoptic_stuff_val2017"),
            str(coco / "annotations/instances_val2017.json"),
        )
        records = DatasetCatalog.get("coco_copy_separated")
    finally:
        for name in ("coco_copy_separated", "coco_copy_stuffonly"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    assert len(records) == 3 and all("sem_seg_file_name" in r for r in records)


def test_an_unknown_category_stops_the_preparation(coco):
    change = {"category_id": 12}  # an id that COCO does not use
    edit(
        coco / "annotations/panoptic_val2017.json",
        lambda c: c["annotations"][0]["segments_info"][0].update(change),
    )
    with pytest.raises(UserError, match=r"image 1 .*unknown category 12"):
        execute(FAMILIES["coco_panoptic"].plan(coco.parent), "labels")


# Reading and writing


def test_ids_survive_writing_and_reading(tmp_path):
    ids = np.array([[0, 1, 255, 256], [65535, 65536, 2**24 - 1, 70000]], np.int32)
    write_segment_ids(tmp_path / "new" / "a.png", ids)
    read = read_segment_ids(tmp_path / "new" / "a.png")
    assert read.dtype == np.uint32 and np.array_equal(read, ids)
    rgb = np.array(Image.open(tmp_path / "new" / "a.png"))
    assert rgb[0, 3].tolist() == [0, 1, 0] and rgb[1, 1].tolist() == [0, 0, 1]
    Image.fromarray(np.dstack([rgb, np.full(ids.shape, 9, np.uint8)])).save(tmp_path / "b.png")
    assert np.array_equal(read_segment_ids(tmp_path / "b.png"), ids)  # alpha is ignored


def test_labels_of_a_map(tmp_path):
    ids = np.array([[0, 300, 70000], [300, 5, 4]], np.uint32)
    entry = {"image_id": "a", "file_name": "a.png"}
    infos = [{"id": 300, "category_id": 7}, {"id": 70000, "category_id": 1}]
    files.write_json(tmp_path / "a.json", [{**entry, "segments_info": infos}])
    (annotation,) = read_panoptic_json(tmp_path / "a.json").annotations.values()
    labels = relabel_segments(ids, annotation.segments, {7: 3, 1: 0})
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[255, 3, 0], [3, 255, 255]]
    assert relabel_segments(ids, [], {}).tolist() == [[255] * 3] * 2
    beyond = [annotation.segments[0]._replace(id=number) for number in (-1, 2**33)]
    assert relabel_segments(ids, beyond, {7: 3}).tolist() == [[255] * 3] * 2
