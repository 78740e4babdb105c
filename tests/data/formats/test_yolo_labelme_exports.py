"""YOLO and LabelMe: layouts, settings, lines and shapes."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.own_files import (
    boxes,
    files,
    kinds,
    save_image,
    write_json,
)

from ccsa.data.folder import read_folder
from ccsa.errors import UserError

# YOLO

LINE = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"


def write_yolo(folder, yaml, images, label=LINE):
    folder.mkdir(exist_ok=True)
    (folder / "data.yaml").write_text(yaml)
    for number, name in enumerate(images):
        file = save_image(folder / name, number)
        parts = ["labels" if part == "images" else part for part in Path(name).parts]
        text = (folder / Path(*parts)).with_suffix(".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(label)
    return file


@pytest.mark.parametrize(
    ("yaml", "images"),
    [
        (  # Roboflow
            "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\n"
            "names: ['cell']\n",
            ["train/images/a.jpg", "valid/images/b.jpg"],
        ),
        (  # Ultralytics
            "path: ../datasets/coco8\ntrain: images/train\nval: images/val\ntest:\n"
            "names:\n  0: cell\n",
            ["images/train/a.jpg", "images/val/b.jpg"],
        ),
        ("path: sub\ntrain: images\nval: [v/images]\nnames: [cell]",
         ["sub/images/a.jpg", "v/images/b.jpg"]),
        ("train: images/train\nval: images/val\nnames: [cell]",
         ["images/train/x/a.jpg", "images/val/b.JPG"]),
        ("train: train\nval: val\nnames: [cell]", ["train/a.jpg", "val/b.jpg"]),  # labels beside
        ("path: C:\\data\ntrain: images\\train\nval: images\\val\nnames: [cell]",
         ["images/train/a.jpg", "images/val/b.jpg"]),
    ],
)  # fmt: skip
def test_yolo_layouts(tmp_path, yaml, images):
    write_yolo(tmp_path, yaml, images)
    data = read_folder(tmp_path)
    assert (data.format, data.classes, kinds(data)) == ("yolo", ["cell"], [])
    for split in ("train", "val"):
        assert len(data.splits[split]) == 1
        assert boxes(data, split) == [pytest.approx([6.4, 4.8, 25.6, 19.2])]


def test_yolo_lists_of_images_and_folders(tmp_path):
    yaml = "path: .\ntrain: [images/a, images/b]\nval: val.txt\nnames: [cell]"
    write_yolo(tmp_path, yaml, ["images/a/1.png", "images/b/2.png", "images/c/3.png"])
    (tmp_path / "val.txt").write_text("./images/c/3.png\nimages/c/none.png\n")
    data = read_folder(tmp_path)
    assert files(data) == ["1.png", "2.png"] and files(data, "val") == ["3.png"]
    assert kinds(data) == ["missing_image"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: [no, yes]", r"'names' contains False, not text; write the name in quotes"),
        ("names: [a, a]", "a class twice"),
        ("names: {1: a, 2: b}", "must be 0 to 1"),
        ("names: [a]\nnc: 2", "'nc' is 2, but 'names' has 1 classes"),
        ("names: [a]\nkpt_shape: [17, 3]", "key points"),
        ("names: a", "instead of a list"),
        ("names: [a", "not valid YAML"),
        ("names: [2020-99-99]", "not valid YAML"),
        ("names: &a [*a]", "not text"),
        (f"names: [{'9' * 5000}]", "not valid YAML"),
    ],
)
def test_yolo_settings_are_checked(tmp_path, names, message):
    write_yolo(tmp_path, f"train: images\n{names}\n", ["images/a.png"])
    with pytest.raises(UserError, match=message):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("x 0 0 1 0 1 1", "wrong_type"),
        ("1 0 0 1 0 1 1", "unknown_category"),
        ("0.5 0 0 1 0 1 1", "unknown_category"),
        ("0 0 0 1 0", "empty_box"),
        ("0 0 0 1 0 1", "invalid_polygon"),
        ("0 0 0 1", "invalid_polygon"),
        ("0 0 0", "degenerate_polygon"),
        ("0 0 0 32 0 32 24", "invalid_polygon"),
        ("0 0 0 nan 0 1 1", "invalid_polygon"),
        ("0 0.5 0.5 64 48", "invalid_box"),
        ("0 0.9 0.5 0.9 0.5", "box_outside_image"),
        ("0 0.5 0.5 0.5 0.5", "missing_mask"),
        ("0 0 0 1.2 0 1 1", "polygon_outside_image"),
        ("0 0.5 0.5 0.5 0.5 0.5 0.5", "empty_mask"),
        (LINE + LINE, "duplicate_annotation"),
        ("\xff\xfe\xfd", "unreadable_label"),
    ],
)
def test_yolo_lines_are_checked(tmp_path, label, kind):
    write_yolo(tmp_path, "train: images\nnames: [cell]", ["images/a.png", "images/b.png"])
    (tmp_path / "labels/a.txt").write_bytes(label.encode("latin-1"))
    data = read_folder(tmp_path)
    assert kind in kinds(data)
    (problem,) = [p for p in data.problems if p.kind == kind]
    assert problem.file.endswith("a.txt")


# LabelMe


def labelme(*shapes, **fields):
    return {
        **{"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": "a.png"},
        **{"imageData": None, "imageHeight": 48, "imageWidth": 64},
        **fields,
    }


def shape(kind, points, **fields):
    return {"label": "cell", "points": points, "shape_type": kind, "group_id": None, **fields}


def mask_shape(height, width, corner):
    buffer = io.BytesIO()
    Image.fromarray(np.ones((height, width), bool)).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    far = [corner[0] + width - 1, corner[1] + height - 1]
    return shape("mask", [list(corner), far], mask=text)


def read_labelme(folder, *shapes, **fields):
    save_image(folder / "a.png")
    write_json(folder / "a.json", labelme(*shapes, **fields))
    data = read_folder(folder)
    assert data.format == "labelme"
    return data


@pytest.mark.parametrize(
    ("entry", "box", "area"),
    [
        (shape("polygon", [[10, 10], [30, 10], [30, 30], [10, 30]]), [10, 10, 20, 20], 400),
        (shape("rectangle", [[30, 30], [10, 10]]), [10, 10, 20, 20], 400),
        (shape("rectangle", [[10, 10], [30, 10], [30, 30], [10, 30]]), [10, 10, 20, 20], 400),
        (shape("circle", [[20, 20], [30, 20]]), [10, 10, 20, 20], 314),
        (mask_shape(10, 20, (5, 7)), [5, 7, 20, 10], 200),
        (mask_shape(10, 20, (-5, -5)), [0, 0, 15, 5], 75),
        (mask_shape(10, 20, (60, 40)), [60, 40, 4, 8], 32),
    ],
)
def test_labelme_shapes(tmp_path, entry, box, area):
    data = read_labelme(tmp_path, entry)
    (annotation,) = data.splits["train"][0]["annotations"]
    assert annotation["bbox"] == pytest.approx(box)
    assert annotation["area"] == pytest.approx(area, rel=0.03)


def test_labelme_groups_are_one_object(tmp_path):
    parts = [shape("rectangle", [[x, 5], [x + 8, 9]], group_id=3) for x in (5, 40)]
    other = shape("rectangle", [[5, 20], [9, 30]], group_id=3, label="dirt")
    data = read_labelme(tmp_path, *parts, other)
    assert data.classes == ["cell", "dirt"]
    cell, dirt = data.splits["train"][0]["annotations"]
    assert len(cell["segmentation"]) == 2 and len(dirt["segmentation"]) == 1


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (shape("point", [[1, 1]]), "degenerate_polygon"),
        (shape("polygon", [[1, 1], [2, 2]]), "degenerate_polygon"),
        (shape("polygon", [[1, 1], [2, 2], ["3", 3]]), "invalid_polygon"),
        (shape("polygon", [[1, 1], [2, 2], [1e8, 3]]), "invalid_polygon"),
        (shape("circle", [[1, 1]]), "invalid_polygon"),
        (shape("star", [[1, 1], [2, 2], [3, 1]]), "wrong_type"),
        (shape("polygon", None), "missing_field"),
        (shape("polygon", [[1, 1]] * 3, label=7), "wrong_type"),
        (shape("mask", [[1, 1], [3, 3]], mask="no base64"), "invalid_rle"),
        (mask_shape(200, 300, (0, 0)), "rle_size"),
        (mask_shape(5, 5, (70, 10)), "empty_mask"),
        (7, "wrong_type"),
    ],
)
def test_labelme_damage_is_reported(tmp_path, entry, kind):
    good = shape("rectangle", [[10, 10], [20, 20]])
    data = read_labelme(tmp_path, good, entry)
    assert kind in kinds(data)
    assert len(data.splits["train"][0]["annotations"]) == 1


def test_labelme_without_an_image_file(tmp_path):
    save_image(tmp_path / "b.png")
    write_json(tmp_path / "b.json", labelme(imagePath="..\\pictures\\b.png"))
    write_json(tmp_path / "c.json", labelme(imagePath="c.png", imageData="iVBORw0KGgo="))
    data = read_folder(tmp_path)
    assert files(data) == ["b.png"]
    (problem,) = [p for p in data.problems if p.kind == "missing_image"]
    assert "only embedded as 'imageData'" in problem.message
