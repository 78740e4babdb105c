"""What only shows in a whole file or folder: units, crowd marks, splits, links and class names."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.own_files import coco, files, kinds, save_image, write_images, write_json

from ccsa.data import FolderDataset, read_folder
from ccsa.errors import UserError

RLE = {"size": [48, 64], "counts": [10 * 48 + 10, 20, 48 * 54 - 30]}
YOLO_LINE = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"


def test_the_package_exports_the_reader():
    from ccsa.data import folder

    assert read_folder is folder.read_folder and FolderDataset is folder.FolderDataset
    text = "import sys, ccsa.data; sys.exit('ccsa.data.folder' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0


def read_coco(folder, name="train.json", images="train", **fields):
    write_images(folder / images, "a.png", "b.png")
    write_json(folder / name, coco("a.png", "b.png", **fields))
    return read_folder(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"bbox": [0.1, 0.2, 0.5, 0.25], "segmentation": None},
        {"bbox": [0.1, 0.2, 0.5, 0.25]},
        {"segmentation": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]]},
    ],
)
def test_normalized_coordinates(tmp_path, fields):
    data = read_coco(tmp_path, **fields)
    assert kinds(data)[0] == "normalized_coordinates"
    assert data.problems.counts["normalized_coordinates"] == 1


@pytest.mark.parametrize("box", [[0.0, 0.0, 1.5, 1.0], [0, 0, 64, 48]])
def test_small_boxes_are_not_normalized(tmp_path, box):
    data = read_coco(tmp_path, bbox=box, segmentation=None)
    assert "normalized_coordinates" not in kinds(data)


@pytest.mark.parametrize(
    ("polygon", "empty"),
    [
        ([5, 6, 10, 6, 20, 6], True),
        ([5, 5, 5, 5, 5, 5], True),
        ([5, 5, 8, 5, 8, 8, 5, 8], False),
        ([5, 5, 6, 5, 6, 40, 5, 40], False),  # one pixel wide
        ([10, 10, 30, 30, 30, 10, 10, 30], False),  # crosses itself
    ],
)
def test_polygons_without_pixels(tmp_path, polygon, empty):
    data = read_coco(tmp_path, segmentation=[polygon])
    assert data.problems.counts["empty_mask"] == 2 * empty


@pytest.mark.parametrize(
    ("name", "marked", "masks", "polygons", "reported", "crowds"),
    [
        ("annotations/instances_default.json", 7, 8, 0, True, 0),
        ("annotations/instances_default.json", 3, 3, 5, True, 0),
        ("annotations/instances_default.json", 1, 1, 40, False, 1),  # as in COCO itself
        ("train.json", 3, 3, 5, True, 3),
        ("train.json", 1, 4, 0, False, 1),
    ],
)
def test_crowd_marks(tmp_path, name, marked, masks, polygons, reported, crowds):
    content = coco(*[f"{i}.png" for i in range(masks + polygons)])
    write_images(tmp_path / "images", *[f"{i}.png" for i in range(masks + polygons)])
    for number, entry in enumerate(content["annotations"]):
        if number < masks:
            entry.update(segmentation=RLE, iscrowd=int(number < marked))
    write_json(tmp_path / name, content)
    data = read_folder(tmp_path)
    messages = [p.message for p in data.problems if p.kind == "masks_marked_crowd"]
    assert bool(messages) == reported and all(f"{marked} of {masks} " in m for m in messages)
    assert sum(a["iscrowd"] for a in data.annotations) == crowds


def test_unlisted_images_of_coco(tmp_path):
    write_images(tmp_path / "images", "extra.png", "c.png")
    write_json(tmp_path / "val.json", coco("c.png"))
    data = read_coco(tmp_path, images="images")
    assert [p.file for p in data.problems if p.kind == "unlisted_image"] == [
        str(tmp_path / "images/extra.png")
    ]


def test_unlisted_images_of_labelme(tmp_path):
    write_images(tmp_path, "a.png", "b.png", "extra.png")
    points = [[10, 10], [30, 10], [30, 30]]
    for name in "ab":
        content = {"imagePath": f"{name}.png", "shapes": [{"label": "cell", "points": points}]}
        write_json(tmp_path / f"{name}.json", content)
    data = read_folder(tmp_path)
    assert [p.file for p in data.problems if p.kind == "unlisted_image"] == [
        str(tmp_path / "extra.png")
    ]


def write_yolo(folder, yaml, *names, labels=None):
    (folder / "data.yaml").write_text(f"{yaml}\nnames: [cell]\n")
    for number, name in enumerate(names):
        image = save_image(folder / "images" / name, number)
        if labels is None or name in labels:
            text = (folder / "labels" / name).with_suffix(".txt")
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(YOLO_LINE)
    return image


@pytest.mark.parametrize(("labeled", "reported"), [(3, True), (1, False), (4, False)])
def test_yolo_images_without_labels(tmp_path, labeled, reported):
    names = [f"train/{i}.png" for i in range(4)]
    write_yolo(tmp_path, "train: images/train", *names, "val/a.png", labels=names[:labeled])
    data = read_folder(tmp_path)
    messages = [p.message for p in data.problems if p.kind == "unlisted_image"]
    assert len(messages) == reported and all("1 of 4" in m for m in messages)


@pytest.mark.parametrize(
    "yaml",
    [
        "train: ../train/images\nval: ../valid/images",
        "train: nowhere/a\nval: nowhere/b",
        "train: images\nval: images/val",
        "train: .\nval: ./images/val",
        "train: /data/x/images/train\nval: C:\\x\\images\\val",
    ],
)
def test_yolo_paths_do_not_mix_splits(tmp_path, yaml):
    write_yolo(tmp_path, yaml, "train/a.png", "val/b.png")
    data = read_folder(tmp_path)
    assert files(data) == ["a.png"] and files(data, "val") == ["b.png"]


def test_yolo_path_that_does_not_exist(tmp_path):
    write_yolo(tmp_path, "train: images/a\nval: foo/bar", "a/a.png", "b/b.png")
    with pytest.raises(UserError, match=r"data\.yaml: 'val' \('foo/bar'\) does not exist"):
        read_folder(tmp_path)


def test_yolo_splits_of_the_same_images(tmp_path):
    write_yolo(tmp_path, "train: images/a\nval: images/a", "a/a.png", "b/b.png")
    with pytest.raises(UserError, match="'train' and 'val' are the same images"):
        read_folder(tmp_path)


@pytest.mark.parametrize("format", ["coco", "yolo", "class_masks"])
def test_links_to_files_elsewhere_can_be_allowed(tmp_path, format):
    """As in data of DVC, git-annex and the Hugging Face hub."""
    folder = tmp_path / "data"
    names = ["train/a.png", "train/b.png"]
    if format == "coco":
        write_images(folder, *names)
        write_json(folder / "train.json", coco("a.png", "b.png"))
        images = [folder / name for name in names]
    elif format == "yolo":
        folder.mkdir()
        write_yolo(folder, "train: images/train", *names)
        images = [folder / "images" / name for name in names]
    else:
        images = [save_image(folder / "images" / name, i) for i, name in enumerate(names)]
        for name in names:
            (folder / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (64, 48)).save(folder / "labels" / name)
        (folder / "classes.txt").write_text("ground\ncell\n")
    for number, image in enumerate(images):
        save_image(tmp_path / f"cache/{number}.png", number)
        image.unlink()
        image.symlink_to(tmp_path / f"cache/{number}.png")
    data = read_folder(folder)
    assert data.problems.counts["outside"] == 2
    assert sorted(files(data) + files(data, "val")) == ["a.png", "b.png"]
    assert "outside" not in {p.kind for p in data.problems.stopping(["outside"])}


@pytest.mark.parametrize(("values", "guessed"), [([0, 1, 2], True), ([0, 1, 2, 3], False)])
def test_a_guessed_format_is_logged(tmp_path, caplog, values, guessed):
    for name in ("a.png", "b.png"):
        save_image(tmp_path / "images" / name)
        (tmp_path / "labels").mkdir(exist_ok=True)
        label = np.repeat(np.array(values, np.uint8), 64 // len(values))
        label = np.tile(np.pad(label, (0, 64 - len(label))), (48, 1))
        Image.fromarray(label).save(tmp_path / "labels" / name)
    with caplog.at_level(logging.WARNING):
        data = read_folder(tmp_path)
    assert ("--data-format instance_labels" in caplog.text) == guessed
    assert data.format == ("class_masks" if guessed else "instance_labels")


@pytest.mark.parametrize(
    ("text", "classes", "warned"),
    [
        ("0: ground\n1: cell", ["ground", "cell"], False),
        ("cell,1\nground,0", ["ground", "cell"], False),
        ("1: ground\n2: cell", ["1: ground", "2: cell"], True),
        ("type 1\ntype 2", ["type 1", "type 2"], False),
    ],
)
def test_numbers_in_class_files(tmp_path, caplog, text, classes, warned):
    for name in ("a.png", "b.png"):
        save_image(tmp_path / "images" / name)
        (tmp_path / "labels").mkdir(exist_ok=True)
        Image.new("L", (64, 48), 1).save(tmp_path / "labels" / name)
    (tmp_path / "classes.txt").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert read_folder(tmp_path).classes == classes
    assert ("the lines contain numbers" in caplog.text) == warned


def test_class_names_that_are_nearly_equal(tmp_path):
    save_image(tmp_path / "val/c.png")
    write_json(tmp_path / "val.json", coco("c.png", categories=[{"id": 1, "name": "Ce ll"}]))
    data = read_coco(tmp_path)
    message = next(p.message for p in data.problems if p.kind == "classes_differ")
    assert "'Ce ll' and 'cell' differ only by case or spaces" in message
