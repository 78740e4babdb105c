"""COCO files as annotation programs write them, and created splits."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.own_files import (
    SQUARE,
    boxes,
    coco,
    files,
    kinds,
    save_image,
    write_images,
    write_json,
)

from ccsa.data.folder import read_coco_files, read_folder
from ccsa.errors import UserError

# Roboflow


@pytest.mark.parametrize("name", ["cells", "cell"])
def test_roboflow_class_0_is_dropped(tmp_path, name):
    """Even if it has the name of the only class, as in projects of one class."""
    categories = [
        {"id": 0, "name": name, "supercategory": "none"},
        {"id": 1, "name": "cell", "supercategory": name},
    ]
    for split, value in (("train", 1), ("valid", 2), ("test", 3)):
        save_image(tmp_path / split / "a.jpg", value)
        content = coco("a.jpg", categories=categories)
        write_json(tmp_path / split / "_annotations.coco.json", content)
    data = read_folder(tmp_path)
    assert data.format == "coco" and data.classes == ["cell"]
    assert list(data.splits) == ["train", "val", "test"]
    assert kinds(data) == ["dropped_category"]
    assert len(boxes(data)) == len(boxes(data, "val")) == 1


@pytest.mark.parametrize("reason", ["annotation in val", "no supercategory", "id 5"])
def test_a_class_in_use_is_not_dropped(tmp_path, reason):
    first = 5 if reason == "id 5" else 0
    categories = [
        {"id": first, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "cell", "supercategory": "x" if "super" in reason else "cells"},
    ]
    for split in ("train", "valid"):
        save_image(tmp_path / split / "a.jpg")
        used = {"category_id": 0} if reason == "annotation in val" and split == "valid" else {}
        content = coco("a.jpg", categories=categories, **used)
        write_json(tmp_path / split / "_annotations.coco.json", content)
    assert sorted(read_folder(tmp_path).classes) == ["cell", "cells"]


# CVAT


@pytest.mark.parametrize("place", ["images", "images/default", "default"])
def test_cvat(tmp_path, place):
    write_images(tmp_path / place, "a b.png", "c(1).png", "d.png")
    rle = {"size": [48, 64], "counts": [10 * 48 + 10, 20, 48 * 54 - 30]}
    content = coco("a b.png", "c(1).png", "d.png", segmentation=rle, iscrowd=1)
    write_json(tmp_path / "annotations/instances_default.json", content)
    data = read_folder(tmp_path)
    assert data.format == "coco" and data.created
    annotations = [a for records in data.splits.values() for r in records for a in r["annotations"]]
    assert len(annotations) == 3 and not any(a["iscrowd"] for a in annotations)
    assert kinds(data) == ["masks_marked_crowd"]


# Label Studio


@pytest.mark.parametrize(
    "name",
    [
        "images/0a1b2c3d-x.png",
        "images\\0a1b2c3d-x.png",
        "x.png",
        "..\\..\\label-studio\\media\\upload\\1\\0a1b2c3d-x.png",
        "/data/local-files/?d=0a1b2c3d-x.png",
    ],
)
def test_label_studio_names(tmp_path, name):
    save_image(tmp_path / "images/0a1b2c3d-x.png")
    write_json(tmp_path / "result.json", coco(name))
    assert files(read_folder(tmp_path)) == ["0a1b2c3d-x.png"]


def test_label_studio_images_without_the_prefix(tmp_path):
    save_image(tmp_path / "images/x.png")
    write_json(tmp_path / "result.json", coco("images/0a1b2c3d-x.png"))
    assert files(read_folder(tmp_path)) == ["x.png"]


# VIA


def test_via(tmp_path):
    """Flat polygons, ids in quotes, sizes of 0."""
    save_image(tmp_path / "a.jpg")
    content = coco("a.jpg", segmentation=SQUARE, image_id="0")
    content["images"][0] |= {"width": 0, "height": 0}
    write_json(tmp_path / "via_export_coco.json", content)
    data = read_folder(tmp_path)
    (record,) = data.splits["train"]
    assert (record["width"], record["height"]) == (64, 48)
    assert record["annotations"][0]["segmentation"] == [SQUARE]
    assert {"quoted_number", "missing_size"} <= set(kinds(data))


def test_a_project_of_via_is_explained(tmp_path):
    regions = {"a.jpg123": {"filename": "a.jpg", "size": 1, "regions": []}}
    for content in (regions, {"_via_settings": {}, "_via_img_metadata": regions}):
        file = write_json(tmp_path / "via_region_data.json", content)
        with pytest.raises(UserError, match=r"project of VIA.*export the annotations as COCO"):
            read_folder(file)


# COCO files one by one


def test_coco_files_with_folders(tmp_path):
    write_images(tmp_path / "one", "a.png", "b.png")
    save_image(tmp_path / "two/a.png", 9)
    train = write_json(tmp_path / "x/t.json", coco("a.png", "b.png"))
    val = write_json(tmp_path / "x/v.json", coco("a.png"))
    data = read_coco_files(train, tmp_path / "one", val, tmp_path / "two")
    assert len(data.splits["train"]) == 2 and not data.created
    assert data.splits["val"][0]["file_name"] == str(tmp_path / "two/a.png")
    data = read_coco_files(train, tmp_path / "one")
    assert data.created and {n: len(r) for n, r in data.splits.items()} == {"train": 1, "val": 1}


def test_a_coco_file_finds_its_images_beside_it(tmp_path):
    write_images(tmp_path / "train2017", "a.png", "b.png")
    file = write_json(tmp_path / "annotations/instances_train2017.json", coco("a.png", "b.png"))
    assert not kinds(read_folder(file))


def test_wrong_arguments_are_named(tmp_path):
    file = write_json(tmp_path / "t.json", coco("a.png"))
    with pytest.raises(UserError, match=r"--images .*none is not a folder"):
        read_coco_files(file, tmp_path / "none")
    with pytest.raises(UserError, match=r"--val-images .*t\.json is not a folder"):
        read_coco_files(file, None, file, file)
    with pytest.raises(UserError, match=r"v\.json does not exist"):
        read_coco_files(file, None, tmp_path / "v.json")
    with pytest.raises(UserError, match="name its folder to read it as yolo"):
        read_folder(file, format="yolo")
    with pytest.raises(UserError, match="does not exist"):
        read_folder(tmp_path / ("x" * 300))
    with pytest.raises(UserError, match="coco_panoptic"):
        read_folder(tmp_path, format="coco_panoptik")
    yaml = tmp_path / "data.yaml"
    yaml.touch()
    with pytest.raises(UserError, match="YAML file; for YOLO, name its folder"):
        read_folder(yaml)


def test_two_candidates_are_not_chosen_silently(tmp_path):
    save_image(tmp_path / "a.png")
    for name in ("first.json", "second.json"):
        write_json(tmp_path / name, coco("a.png"))
    with pytest.raises(UserError, match=r"several files .*'train': .*first.json and .*second.json"):
        read_folder(tmp_path)


def test_instances_are_preferred_to_key_points_and_captions(tmp_path):
    save_image(tmp_path / "images/a.png")
    for name in ("captions", "instances", "person_keypoints"):
        write_json(tmp_path / f"annotations/{name}_train2017.json", coco("a.png"))
    assert read_folder(tmp_path).sources["train"].name == "instances_train2017.json"


# Names of files


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("a b [1] (2).png", "a b [1] (2).png"),
        ("é.png", unicodedata.normalize("NFD", "é.png")),
        (unicodedata.normalize("NFD", "Zürich.png"), unicodedata.normalize("NFC", "Zürich.png")),
        ("A.PNG", "a.png"),
        ("x.JPG", "x.JPG"),
        ("deep/er/a.png", "deep/er/a.png"),
        ("deep/er/a.png", "a.png"),
        ("a.png", "/elsewhere/machine/a.png"),
        ("a.png", "C:\\Users\\me\\a.png"),
    ],
)
def test_names_of_images(tmp_path, name, listed):
    save_image(tmp_path / "train" / name)
    write_json(tmp_path / "train.json", coco(listed))
    data = read_folder(tmp_path)
    assert files(data) == [Path(name).name] and kinds(data) == ["empty_split"]  # of one image


def test_images_that_cannot_be_used(tmp_path):
    save_image(tmp_path / "outside/secret.png")
    folder = tmp_path / "data"
    write_images(folder / "train", "a.png", "b.png", "x/twice.png", "y/twice.png")
    (folder / "train/folder.png").mkdir()
    (folder / "train/link.png").symlink_to(tmp_path / "outside/secret.png")
    names = ("a.png", "b.png", "../../outside/secret.png", "link.png", "folder.png", "no.png")
    write_json(folder / "train.json", coco(*names, "twice.png", "a\0.png"))
    data = read_folder(folder)
    found = {p.kind: p.message for p in data.problems}
    assert sorted(found) == ["missing_image", "not_a_file", "outside"]
    assert data.problems.counts == {"missing_image": 3, "not_a_file": 1, "outside": 2}
    assert any("2 files have the name twice.png" in p.message for p in data.problems)
    assert sorted(files(data) + files(data, "val")) == ["a.png", "b.png", "link.png"]


def test_an_image_is_not_taken_from_another_split(tmp_path):
    write_images(tmp_path / "train", "a.png", "b.png")
    save_image(tmp_path / "val/c.png", 7)
    write_json(tmp_path / "train.json", coco("a.png", "b.png", "c.png"))
    write_json(tmp_path / "val.json", coco("c.png"))
    data = read_folder(tmp_path)
    assert files(data) == ["a.png", "b.png"] and kinds(data) == ["missing_image"]


# Created splits


def test_a_created_split_follows_the_content(tmp_path):
    """Names, folders and order do not matter, and equal images stay together."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(40)]
    chosen = []
    for attempt, order in enumerate((range(40), range(39, -1, -1))):
        folder = tmp_path / str(attempt)
        (folder / "images").mkdir(parents=True)
        names = []
        for number in order:
            for copy in ("", " copy"):
                names.append(f"{attempt}_{number}{copy}.png")
                Image.fromarray(pictures[number]).save(folder / "images" / names[-1])
        write_json(folder / "anything.json", coco(*names))
        data = read_folder(folder)
        assert len(data.splits["train"]) + len(data.splits["val"]) == 80
        assert 4 <= len(data.splits["val"]) <= 24
        numbers = {s: [n.split("_")[1].split(".")[0].split()[0] for n in files(data, s)]
                   for s in ("train", "val")}  # fmt: skip
        assert not set(numbers["train"]) & set(numbers["val"])
        chosen.append(sorted(numbers["val"]))
    assert chosen[0] == chosen[1]


def test_the_creation_is_logged(tmp_path, caplog):
    write_images(tmp_path / "images", "a.png", "b.png")
    write_json(tmp_path / "all.json", coco("a.png", "b.png"))
    with caplog.at_level("INFO", logger="ccsa.data.folder"):
        data = read_folder(tmp_path)
    assert data.created and "1 of 2 images" in caplog.text


def test_only_a_test_split(tmp_path):
    save_image(tmp_path / "test/a.png")
    write_json(tmp_path / "test.json", coco("a.png"))
    with pytest.raises(UserError, match=r"no training split .*it has test"):
        read_folder(tmp_path)


def test_a_training_split_without_annotations(tmp_path):
    write_images(tmp_path / "train", "a.png", "b.png")
    write_json(tmp_path / "train.json", {**coco("a.png", "b.png"), "annotations": []})
    data = read_folder(tmp_path)
    assert sum(map(len, data.splits.values())) == 2 and not data.annotations


def test_an_unknown_folder_is_described(tmp_path):
    (tmp_path / "notes.md").touch()
    with pytest.raises(UserError, match=r"not recognized \(it contains notes.md\)"):
        read_folder(tmp_path)
