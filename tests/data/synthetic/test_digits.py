"""The digits dataset: the files, and that interrupted writing leaves nothing behind."""

import contextlib
import io
import itertools
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ccsa.data.synthetic import digit_files, digits
from ccsa.data.synthetic.digit_scenes import GROUNDS, SIZE, draw_scene, load_scans
from ccsa.data.synthetic.digits import ensure_digits, write_digits
from ccsa.errors import UserError

COUNTS = {"train": 5, "val": 3}


def contents(folder):
    """Return the bytes of every file, by its path below the folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "digits"
    write_digits(folder, COUNTS)
    return folder


def annotations(folder, kind, split):
    return json.loads((folder / "annotations" / f"{kind}_{split}.json").read_text())


def labels(folder, kind, split, image_id):
    return np.asarray(Image.open(folder / f"{kind}_{split}" / f"{image_id:06d}.png")).astype(int)


def segment_ids(folder, split, image_id):
    rgb = labels(folder, "panoptic", split, image_id)
    return rgb @ [1, 256, 256**2]


def read_coco(folder, split):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(folder / "annotations" / f"instances_{split}.json"))


# The files


def test_the_dataset_is_large_enough():
    assert digits.COUNTS["train"] >= 2000 and digits.COUNTS["val"] >= 300


def test_one_seed_gives_the_same_bytes(folder, tmp_path):
    write_digits(tmp_path / "again", COUNTS)
    assert contents(tmp_path / "again") == contents(folder)
    write_digits(tmp_path / "other", COUNTS, seed=1)
    other, same = contents(tmp_path / "other"), contents(folder)
    assert set(other) == set(same)
    assert all(other[f] != same[f] for f in same if f.endswith(".jpg"))


def test_a_scene_depends_on_its_number_alone(folder, tmp_path):
    write_digits(tmp_path / "fewer", {"train": 2, "val": 1})
    fewer, all_ = contents(tmp_path / "fewer"), contents(folder)
    images = [name for name in fewer if name.endswith((".jpg", ".png"))]
    assert len(images) == 3 * 4
    assert all(fewer[name] == all_[name] for name in images)


def test_every_scene_is_another(folder):
    images = [data for name, data in contents(folder).items() if name.endswith(".jpg")]
    assert len(images) == len(set(images)) == sum(COUNTS.values())


def test_training_and_validation_share_no_scan():
    (train, train_classes), (val, val_classes) = load_scans("train"), load_scans("val")
    assert not {s.tobytes() for s in train} & {s.tobytes() for s in val}
    assert len(train) + len(val) == 1797  # all scans of scikit-learn
    assert 0.19 < len(val) / 1797 < 0.21
    assert set(train_classes) == set(val_classes) == set(range(10))
    assert train.min() == 0 and train.max() == 1


def test_each_split_is_drawn_from_its_own_scans(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        digit_files, "draw_scene", lambda rng, s, c: seen.append((s, c)) or draw_scene(rng, s, c)
    )
    write_digits(tmp_path / "digits", {"train": 1, "val": 1})
    for (scans, classes), split in zip(seen, ("train", "val"), strict=True):
        expected = load_scans(split)
        assert np.array_equal(scans, expected[0]) and np.array_equal(classes, expected[1])


def test_scenes_are_as_described():
    scans, classes = load_scans("train")
    grounds, drawn = set(), set()
    for seed in range(40):
        scene = draw_scene(np.random.default_rng(seed), scans, classes)
        assert scene.image.shape == (SIZE, SIZE, 3) and scene.image.dtype == np.uint8
        assert scene.ground.shape == (SIZE, SIZE) and scene.masks.shape[1:] == (SIZE, SIZE)
        assert 1 <= len(scene.masks) == len(scene.classes) <= 6
        assert scene.masks.sum(0).max() == 1  # visible masks do not overlap
        assert all(mask.sum() > 50 for mask in scene.masks)
        present = set(np.unique(scene.ground))
        assert 1 <= len(present) <= 2
        grounds |= present
        drawn |= set(scene.classes)
    assert grounds == {0, 1, 2} and drawn == set(range(10))


@pytest.mark.parametrize("split", COUNTS)
def test_files_and_counts(folder, split):
    names = [f"{number:06d}" for number in range(1, COUNTS[split] + 1)]
    assert sorted(p.name for p in (folder / split).iterdir()) == [f"{n}.jpg" for n in names]
    for kind in ("panoptic", "panoptic_stuff", "sem_seg"):
        place = folder / f"{kind}_{split}"
        assert sorted(p.name for p in place.iterdir()) == [f"{n}.png" for n in names]
    for kind in ("instances", "panoptic"):
        images = annotations(folder, kind, split)["images"]
        assert [image["file_name"] for image in images] == [f"{n}.jpg" for n in names]
        assert [image["id"] for image in images] == list(range(1, COUNTS[split] + 1))
        for image in images:
            pixels = cv2.imread(str(folder / split / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3)


def test_instances_are_valid_coco(folder):
    for split in COUNTS:
        coco = read_coco(folder, split)
        assert {c["id"]: c["name"] for c in coco.dataset["categories"]} == {
            digit + 1: str(digit) for digit in range(10)
        }
        ids = [a["id"] for a in coco.dataset["annotations"]]
        assert len(ids) == len(set(ids)) and min(ids) > 0
        assert {a["image_id"] for a in coco.dataset["annotations"]} == set(coco.imgs)
        for annotation in coco.dataset["annotations"]:
            mask = coco.annToMask(annotation)
            assert annotation["area"] == mask.sum() > 0
            x, y, w, h = annotation["bbox"]
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            assert (x, y) == (columns[0], rows[0])
            assert (w, h) == (columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
            assert annotation["iscrowd"] == 0


def visible_masks(folder, split, image_id):
    """Return the annotations of an image, each with its mask without later digits."""
    coco = read_coco(folder, split)
    found = sorted(coco.imgToAnns[image_id], key=lambda a: a["id"])
    covered = np.zeros((SIZE, SIZE), bool)
    visible = []
    for annotation in found[::-1]:
        mask = coco.annToMask(annotation).astype(bool)
        visible.append((annotation, mask & ~covered))
        covered |= mask
    return visible[::-1], covered


@pytest.mark.parametrize("split", COUNTS)
def test_polygons_are_what_the_label_images_show(folder, split):
    for image_id in range(1, COUNTS[split] + 1):
        visible, covered = visible_masks(folder, split, image_id)
        ids = segment_ids(folder, split, image_id)
        semantic = labels(folder, "sem_seg", split, image_id)
        stuff = labels(folder, "panoptic_stuff", split, image_id)
        for annotation, mask in visible:
            assert (semantic[mask] == annotation["category_id"] - 1).all()
            (segment,) = np.unique(ids[mask])
            assert np.array_equal(ids == segment, mask)  # one segment per digit
        assert (stuff[covered] == 0).all() and (semantic[covered] < 10).all()
        assert np.isin(stuff[~covered], [1, 2, 3]).all()
        assert np.array_equal(semantic[~covered], stuff[~covered] + 9)


def test_polygons_are_close_to_the_masks_drawn(folder):
    scans, classes = load_scans("val")
    for number in range(1, COUNTS["val"] + 1):
        rng = np.random.default_rng([digits.SEED, True, number])
        scene = draw_scene(rng, scans, classes)
        coco = read_coco(folder, "val")
        found = sorted(coco.imgToAnns[number], key=lambda a: a["id"])
        assert [a["category_id"] - 1 for a in found] == list(scene.classes)
        for annotation, mask in zip(found, scene.masks, strict=True):
            other = coco.annToMask(annotation).astype(bool)
            assert (mask & other).sum() / (mask | other).sum() > 0.9
        written = cv2.imread(str(folder / "val" / f"{number:06d}.jpg")).astype(int)
        assert np.abs(written[..., ::-1] - scene.image).mean() < 6  # JPEG, RGB


@pytest.mark.parametrize("split", COUNTS)
def test_panoptic_segments_are_those_of_the_images(folder, split):
    panoptic = annotations(folder, "panoptic", split)
    things = annotations(folder, "instances", split)["annotations"]
    categories = {c["id"]: c for c in panoptic["categories"]}
    assert [categories[i]["name"] for i in range(11, 14)] == list(GROUNDS)
    assert {i for i, c in categories.items() if c["isthing"]} == set(range(1, 11))
    assert [a["image_id"] for a in panoptic["annotations"]] == list(range(1, COUNTS[split] + 1))
    for annotation in panoptic["annotations"]:
        image_id = annotation["image_id"]
        assert annotation["file_name"] == f"{image_id:06d}.png"
        ids = segment_ids(folder, split, image_id)
        semantic = labels(folder, "sem_seg", split, image_id)
        infos = {info["id"]: info for info in annotation["segments_info"]}
        assert set(infos) == set(np.unique(ids))  # no void, and no segment without pixels
        assert len(infos) == len(annotation["segments_info"])
        for segment_id, info in infos.items():
            mask = ids == segment_id
            assert info["area"] == mask.sum() and info["iscrowd"] == 0
            x, y, w, h = info["bbox"]
            assert mask[y : y + h, x : x + w].sum() == mask.sum()
            for line in (mask[y], mask[y + h - 1], mask[:, x], mask[:, x + w - 1]):
                assert line.any()
            assert (semantic[mask] == info["category_id"] - 1).all()
        of_things = [i["category_id"] for i in annotation["segments_info"] if i["category_id"] < 11]
        assert of_things == [a["category_id"] for a in things if a["image_id"] == image_id]
    assert max(segment_ids(folder, split, 1).ravel()) > 255  # more than one byte is used


# Interrupted writing


@pytest.fixture
def few(monkeypatch):
    """Make ensure_digits write three scenes."""
    for split, count in (("train", 2), ("val", 1)):
        monkeypatch.setitem(digits.COUNTS, split, count)


def leftovers(root):
    return {p.name for p in root.iterdir()} - {"digits", "digits.lock"}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError, OSError])
def test_an_interrupted_writer_leaves_nothing(few, tmp_path, monkeypatch, interruption):
    calls = itertools.count(1)

    def draw(*args):
        if next(calls) == 3:  # in the second split
            raise interruption("stopped")
        return draw_scene(*args)

    monkeypatch.setattr(digit_files, "draw_scene", draw)
    # A full disk is a UserError; any other error is raised unchanged.
    with pytest.raises(UserError if interruption is OSError else interruption, match="stopped"):
        ensure_digits(tmp_path)
    assert not (tmp_path / "digits").exists() and not leftovers(tmp_path)
    ensure_digits(tmp_path)
    write_digits(tmp_path / "expected", {"train": 2, "val": 1})
    assert contents(tmp_path / "digits") == contents(tmp_path / "expected")
