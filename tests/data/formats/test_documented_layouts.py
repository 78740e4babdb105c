"""Every directory tree in docs/OWN_DATA.md is read, and as the format it stands under."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.own_scenes import (
    CLASSES,
    coco_content,
    contours,
    make_scenes,
    write_class_masks,
    write_coco_compressed,
    write_coco_panoptic,
    write_instance_labels,
    write_label_studio,
    write_labelme,
    write_roboflow,
    write_yolo,
)

from ccsa.data.folder import read_folder

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(14)


def move(folder: Path, *pairs: tuple[str, str]) -> None:
    for old, new in pairs:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)


def save_images(folder: Path, scenes, place) -> None:
    for scene in scenes:
        path = folder / place(scene)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(path)


def coco_of_cvat(folder, scenes):
    save_images(folder, scenes, lambda s: f"images/{s.name}.png")
    (folder / "annotations").mkdir()
    content = coco_content(scenes, lambda _, mask: contours(mask))
    (folder / "annotations/instances_default.json").write_text(json.dumps(content))


def coco_of_coco(folder, scenes):
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        part = [s for s in scenes if s.split == split]
        save_images(folder, part, lambda s: f"{s.split}2017/{s.name}.png")
        content = coco_content(part, lambda _, mask: contours(mask))
        (folder / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))


def yolo_by_split(folder, scenes):
    write_yolo(folder, scenes)
    text = f"train: ../train/images\nval: ../valid/images\nnc: 3\nnames: {CLASSES}\n"
    (folder / "data.yaml").write_text(text)
    move(
        folder,
        *(("images/train", "train/images"), ("labels/train", "train/labels")),
        *(("images/val", "valid/images"), ("labels/val", "valid/labels")),
    )


def labelme_flat(folder, scenes):
    write_labelme(folder, scenes)
    for split in ("train", "val"):
        for file in list((folder / split).iterdir()):
            file.rename(folder / file.name)
        (folder / split).rmdir()


def class_masks(first, second):
    def write(folder, scenes):
        write_class_masks(folder, scenes)
        for split in ("train", "val"):
            move(folder, (split, "moved"))
            move(folder, ("moved", first.format(split)))
            move(folder, (f"{split}_labels", second.format(split)))

    return write


def voc(folder, scenes):
    scenes = [scene._replace(name=scene.name.replace(" ", "_")) for scene in scenes]
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(["background", *CLASSES]))
    save_images(folder, scenes, lambda s: f"JPEGImages/{s.name}.jpg")
    for scene in scenes:
        classes, objects = np.zeros((2, *scene.image.shape[:2]), np.uint8)
        for number, (category, mask) in enumerate(scene.objects, 1):
            classes[mask], objects[mask] = category + 1, number
        for name, values in (("SegmentationClass", classes), ("SegmentationObject", objects)):
            image = Image.fromarray(values)
            image.putpalette(list(range(256)) * 3)
            image.save(folder / name / f"{scene.name}.png")
    for split in ("train", "val"):
        names = [s.name for s in scenes if s.split == split]
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))


def panoptic(folder, scenes):
    write_coco_panoptic(folder, scenes)
    for split in ("train", "val"):
        move(folder, (f"panoptic_{split}.json", f"annotations/panoptic_{split}.json"))


def instance_labels(first, second):
    def write(folder, scenes):
        write_instance_labels(folder, scenes)
        for split in ("train", "val"):
            move(folder, (f"{split}/images", "a"), (f"{split}/masks", "b"))
            (folder / split).rmdir()
            move(folder, ("a", first.format(split)), ("b", second.format(split)))
        (folder / "classes.txt").write_text("nucleus\n")

    return write


LAYOUTS = {
    "coco plain": (write_coco_compressed, "coco"),
    "coco roboflow": (write_roboflow, "coco"),
    "coco cvat": (coco_of_cvat, "coco"),
    "coco label studio": (write_label_studio, "coco"),
    "coco coco": (coco_of_coco, "coco"),
    "yolo": (write_yolo, "yolo"),
    "yolo by split": (yolo_by_split, "yolo"),
    "labelme": (write_labelme, "labelme"),
    "labelme flat": (labelme_flat, "labelme"),
    "class_masks": (write_class_masks, "class_masks"),
    "class_masks images": (class_masks("images/{}", "labels/{}"), "class_masks"),
    "class_masks by split": (class_masks("{}/images", "{}/labels"), "class_masks"),
    "instance_labels": (write_instance_labels, "instance_labels"),
    "instance_labels images": (instance_labels("images/{}", "masks/{}"), "instance_labels"),
    "instance_labels flat": (instance_labels("{}", "{}_instances"), "instance_labels"),
    "voc": (voc, "voc"),
    "coco_panoptic": (panoptic, "coco_panoptic"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_documented_layout_is_read(name, scenes, tmp_path):
    write, format = LAYOUTS[name]
    folder = tmp_path / "data"
    write(folder, scenes)
    data = read_folder(folder)
    assert data.format == format
    assert not data.problems.kinds("error"), [str(p) for p in data.problems]
    assert sum(map(len, data.splits.values())) == len(scenes)
    assert set(data.splits) == {"train", "val"}
    one_split = name in ("coco cvat", "coco label studio", "labelme flat")
    assert data.created == one_split
    if not one_split:
        assert len(data.splits["val"]) == 2


def test_every_format_has_a_section():
    text = (ROOT / "docs/OWN_DATA.md").read_text("utf-8")
    for _, format in LAYOUTS.values():
        assert f"\n### {format}\n" in text
