"""Class masks, instance label images and VOC: layouts, modes and names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.own_files import boxes, files, kinds, save_image

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


@pytest.mark.parametrize("named", [False, True])
def test_few_objects_in_8_bits_may_be_classes(tmp_path, named, caplog):
    """One name shows that 2 is the number of an object; without names, the log states both."""
    for stem in "abc":
        save_image(tmp_path / f"images/{stem}.png", ord(stem))
        save_label(tmp_path / f"masks/{stem}.png", object_label(np.uint8, 2))
    if named:
        (tmp_path / "classes.txt").write_text("cell\n")
        assert read_folder(tmp_path).format == "instance_labels"
        return
    assert read_folder(tmp_path).format == "class_masks"
    assert "If they number objects, use --data-format instance_labels" in caplog.text
    assert read_folder(tmp_path, format="instance_labels").classes == ["object"]


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


def write_voc(folder, lists, stems, labeled=None):
    """Write images with labels, and lists of images."""
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    (folder / "SegmentationClass").mkdir()
    for number, stem in enumerate(stems):
        save_image(folder / f"JPEGImages/{stem}.jpg", number)
    for stem in stems if labeled is None else labeled:
        save_label(folder / f"SegmentationClass/{stem}.png", object_label(np.uint8) > 0)
    for name, text in lists.items():
        (folder / f"ImageSets/Segmentation/{name}.txt").write_text(text)


def test_the_lists_of_voc_name_images_with_spaces_and_marks(tmp_path):
    """A number at the end is a mark of the lists of a class, unless an image has that name."""
    stems = ["a b", "photo 1", "photo 0", "photo -1", "c", "d", "e.f"]
    lists = {
        "train": "a b\nphoto 1\nphoto 0  1\nphoto -1\nc  1\n\nc.jpg\n",
        "val": "d -1\ne.f   0\n",
    }
    write_voc(tmp_path, lists, stems)
    data = read_folder(tmp_path)
    assert not kinds(data)
    names = ["a b.jpg", "photo 1.jpg", "photo 0.jpg", "photo -1.jpg", "c.jpg"]
    assert files(data) == names and files(data, "val") == ["d.jpg", "e.f.jpg"]


def test_images_that_no_list_of_voc_names_are_reported(tmp_path):
    lists = {"train": "a\nnone here\n", "val": "b\n", "trainval": "a\nb\nc\n"}
    write_voc(tmp_path, lists, "abcde", labeled="abd")
    data = read_folder(tmp_path)
    assert kinds(data) == ["missing_image", "unlisted_image"]
    found = [Path(p.file).name for p in data.problems if p.kind == "unlisted_image"]
    assert found == ["d.jpg", "e.jpg"]
    assert "'none here' of the split has no image" in next(iter(data.problems)).message


@pytest.mark.parametrize("name", ["trainval", "default", None])
def test_lists_of_voc_without_splits_are_for_training(tmp_path, name):
    write_voc(tmp_path, {name: "a\nb\nc\n"} if name else {}, "abcde", labeled="abc")
    data = read_folder(tmp_path)
    assert data.created and sorted(files(data) + files(data, "val")) == ["a.jpg", "b.jpg", "c.jpg"]
    assert kinds(data) == ["unlisted_image"]


def test_a_test_split_of_voc_without_labels_is_left_out(tmp_path, caplog):
    write_voc(tmp_path, {"train": "a\n", "val": "b\n", "test": "c\nd\n"}, "abcd", labeled="ab")
    data = read_folder(tmp_path)
    assert list(data.splits) == ["train", "val"] and not kinds(data)
    assert "The test split has no labels (2 images)" in caplog.text
