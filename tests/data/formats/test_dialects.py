"""The same scenes give the same instances and pixels through every format."""

from pathlib import Path

import numpy as np
import pytest
from support import own_scenes

from ccsa.data.folder import read_folder
from ccsa.data.tasks import decode_mask, derive, semantic_label

COUNT = 28


@pytest.fixture(scope="module")
def scenes():
    return own_scenes.make_scenes(COUNT)


@pytest.fixture(scope="module")
def folders(scenes, tmp_path_factory):
    root = tmp_path_factory.mktemp("dialects")
    for name, (write, *_) in own_scenes.DIALECTS.items():
        write(root / name, scenes)
    return root


def by_scene(records):
    """{name of the scene: record}; Label Studio's prefix is removed."""
    stems = ((Path(r["file_name"]).stem, r) for r in records)
    return {stem[stem.index("scene") :]: record for stem, record in stems}


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("dialect", own_scenes.DIALECTS)
def test_every_dialect_gives_the_same_instances(dialect, folders, scenes):
    _, format, lossless, holes, classes = own_scenes.DIALECTS[dialect]
    data = read_folder(folders / dialect)
    assert data.format == format
    assert not [p for p in data.problems if p.severity == "error"]
    task = derive(data, "detection")
    expected = sorted(own_scenes.CLASSES) if dialect == "labelme" else own_scenes.CLASSES
    assert task.thing_classes == (expected if classes else ["object"])
    if dialect != "label_studio":  # which has no splits
        assert {n: len(r) for n, r in task.splits.items()} == {"train": 24, "val": 4}
        assert not data.created
    records = by_scene([r for rs in task.splits.values() for r in rs])
    assert len(records) == COUNT
    for scene in scenes:
        record = records[scene.name]
        assert (record["height"], record["width"]) == own_scenes.SIZE
        found = [(a["category_id"], decode_mask(a, own_scenes.SIZE)) for a in record["annotations"]]
        assert len(found) == len(scene.objects)
        for category, mask in scene.objects:
            best = max(range(len(found)), key=lambda i: iou(mask, found[i][1]))
            other, given = found.pop(best)
            if classes:
                assert task.thing_classes[other] == own_scenes.CLASSES[category]
            if lossless:
                assert np.array_equal(mask, given)
            elif holes or own_scenes.CLASSES[category] != "ring":
                assert iou(mask, given) >= 0.9
            else:  # the outer contour
                assert iou(own_scenes.filled(mask), given) >= 0.9


@pytest.mark.parametrize("dialect", own_scenes.DIALECTS)
def test_boxes_and_areas_are_those_of_the_masks(dialect, folders):
    holes = own_scenes.DIALECTS[dialect][3]
    task = derive(read_folder(folders / dialect), "detection")
    for record in task.splits["train"]:
        for annotation in record["annotations"]:
            mask = decode_mask(annotation, own_scenes.SIZE)
            np.testing.assert_allclose(annotation["bbox"], own_scenes.box(mask), atol=1.3)
            if holes or task.thing_classes[annotation["category_id"]] != "ring":
                assert annotation["area"] == pytest.approx(mask.sum(), rel=0.12)
            assert annotation["iscrowd"] == 0


@pytest.mark.parametrize("mode", ["L", "P"])
def test_class_masks_give_the_same_pixels_as_instances(mode, folders, scenes, tmp_path):
    own_scenes.write_class_masks(tmp_path, scenes, mode)
    data = read_folder(tmp_path)
    assert (data.format, data.classes) == ("class_masks", ["background", *own_scenes.CLASSES])
    masks = derive(data, "semantic")
    instances = derive(read_folder(folders / "coco_compressed"), "semantic")
    assert masks.stuff_classes == instances.stuff_classes
    for split in ("train", "val"):
        others = by_scene(instances.splits[split])
        for name, record in by_scene(masks.splits[split]).items():
            assert np.array_equal(semantic_label(record), semantic_label(others[name]))


def test_a_missing_split_is_created_and_stays_the_same(folders):
    first, second = (read_folder(folders / "label_studio") for _ in range(2))
    assert first.created
    names = [[r["file_name"] for r in data.splits["val"]] for data in (first, second)]
    assert names[0] == names[1] and 1 <= len(names[0]) <= 8
    assert not set(names[0]) & {r["file_name"] for r in first.splits["train"]}


def test_nothing_is_written(folders):
    before = sorted(folders.rglob("*"))
    for dialect in own_scenes.DIALECTS:
        read_folder(folders / dialect)
    assert sorted(folders.rglob("*")) == before
