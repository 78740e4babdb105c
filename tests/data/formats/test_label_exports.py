"""Class masks, instance label images and VOC: layouts, modes and names."""

import numpy as np
import pytest
from PIL import Image
from support.own_files import boxes, kinds, save_image

from ccsa.data.folder import read_folder
from ccsa.errors import UserError

# Label images


def save_label(file, values):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(file)


def object_label(dtype=np.uint16, count=3):
    values = np.zeros((48, 64), dtype)
    for number in range(count):
        values[5:15, 5 + 15 * number : 15 + 15 * number] = number + 1
    return values


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/x.png", "masks/x.tif"),
        ("images/x.tif", "masks/x.tif"),
        ("images/x.png", "masks/x_mask.tif"),
        ("images/x.png", "labels/x_masks.png"),
        ("train/x.png", "train/x_masks.png"),
        ("train/000_img.png", "train/000_masks.png"),
        ("train/images/x.png", "train/masks/x.tif"),
        ("x.png", "x_cp_masks.png"),
        ("images/day 1/x.png", "masks/day 1/x.png"),
    ],
)
def test_instance_label_layouts(tmp_path, image, label):
    for stem in "xy":
        save_image(tmp_path / image.replace("x", stem).replace("000", f"00{ord(stem)}"), ord(stem))
        file = tmp_path / label.replace("x.", f"{stem}.").replace("x_", f"{stem}_")
        save_label(file.with_name(file.name.replace("000", f"00{ord(stem)}")), object_label())
    data = read_folder(tmp_path)
    assert (data.format, data.classes, kinds(data)) == ("instance_labels", ["object"], [])
    assert boxes(data) == [[5, 5, 10, 10], [20, 5, 10, 10], [35, 5, 10, 10]]


@pytest.mark.parametrize("mode", ["gray", "palette", "binary"])
def test_class_masks(tmp_path, mode):
    (tmp_path / "classes.txt").write_text("background\ncell\n")
    values = (object_label(np.uint8) > 0).astype(np.uint8)
    for split, stem in (("train", "a"), ("val", "b")):
        save_image(tmp_path / split / f"{stem}.jpg")
        save_label(tmp_path / f"{split}_labels/{stem}_label.png", values)
        image = Image.fromarray(values if mode != "binary" else values > 0)
        if mode == "palette":
            image.putpalette([9, 9, 9, 200, 0, 0])
        image.save(tmp_path / f"{split}_labels/{stem}_label.png")
    data = read_folder(tmp_path)
    assert (data.format, data.classes) == ("class_masks", ["background", "cell"])
    assert not kinds(data) and not data.created


def test_class_masks_without_names(tmp_path):
    values = object_label(np.uint8)
    values[30:40] = values[5:15]  # each class in two regions
    for stem in "abc":
        save_image(tmp_path / f"images/{stem}.png", ord(stem))
        save_label(tmp_path / f"labels/{stem}.png", values)
    (tmp_path / "labels/b.png").write_bytes(b"damaged")
    data = read_folder(tmp_path)
    assert (data.format, data.classes) == ("class_masks", [f"class {i}" for i in range(4)])
    assert kinds(data) == ["unreadable_label"]


@pytest.mark.parametrize("text", ["", "\n\n", "a\n\nb"])
def test_classes_without_names_are_rejected(tmp_path, text):
    save_image(tmp_path / "images/a.png")
    save_label(tmp_path / "labels/a.png", np.zeros((48, 64), np.uint8))
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=r"classes.txt (is empty|has an empty line 2)"):
        read_folder(tmp_path)


def test_instance_labels_of_several_classes_are_rejected(tmp_path):
    save_image(tmp_path / "images/a.png")
    save_label(tmp_path / "masks/a.tif", object_label())
    (tmp_path / "classes.txt").write_text("cell\ndirt\n")
    with pytest.raises(UserError, match=r"store one class, but .* lists 2: cell, dirt"):
        read_folder(tmp_path, format="instance_labels")


def test_labels_and_images_without_partner(tmp_path):
    for stem in "ab":
        save_image(tmp_path / f"images/{stem}.png", ord(stem))
        save_label(tmp_path / f"masks/{stem}.tif", object_label())
    save_image(tmp_path / "images/c.png")
    save_label(tmp_path / "masks/d.tif", object_label())
    assert kinds(read_folder(tmp_path)) == ["missing_label", "unpaired_label"]


# VOC


@pytest.mark.parametrize("root", [".", "VOC2012", "VOCdevkit/VOC2007"])
@pytest.mark.parametrize("listing", ["classes.txt", "labelmap.txt", None])
def test_voc(tmp_path, root, listing):
    base = tmp_path / root
    classes = np.where(object_label(np.uint8) == 3, 2, (object_label(np.uint8) > 0) * 1)
    for stem in ("2007_1", "2007_2"):
        save_image(base / f"JPEGImages/{stem}.jpg", int(stem[-1]))
        save_label(base / f"SegmentationObject/{stem}.png", object_label(np.uint8))
        save_label(base / f"SegmentationClass/{stem}.png", classes.astype(np.uint8))
    lists = base / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_1\n")
    (lists / "val.txt").write_text("2007_2\n")
    if listing == "classes.txt":
        (base / listing).write_text("background\ncell\ndirt\n")
    elif listing:
        (base / listing).write_text("# label:color\nbackground:0,0,0::\ncell:1,1,1::\ndirt:2,2,2::")
    data = read_folder(tmp_path)
    names = ["background", "cell", "dirt"] if listing else ["background", "aeroplane", "bicycle"]
    assert data.format == "voc" and data.classes[:3] == names and not kinds(data)
    annotations = data.splits["train"][0]["annotations"]
    assert [a["category_id"] for a in annotations] == [1, 1, 2]
    assert boxes(data)[2] == [35, 5, 10, 10]
