"""Scenes with objects, holes and parts, written as datasets in every format that users bring.

A scene is an image and a list of objects, each a class index and a mask. No two objects overlap, so
that label images can express them.
"""

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pycocotools.mask as coco_mask
from PIL import Image

CLASSES = ["ring", "pair", "disk"]  # with a hole, of two parts, plain
SIZE = 96, 128  # height, width


class Scene(NamedTuple):
    """An image and its objects.

    Attributes:
        name: file name without suffix.
        split: ``train`` or ``val``.
        image: uint8 (H, W, 3).
        objects: (class index, mask) of each object.
    """

    name: str
    split: str
    image: np.ndarray
    objects: list[tuple[int, np.ndarray]]


def make_scenes(count: int = 28, seed: int = 0) -> list[Scene]:
    """Return scenes of objects of about 30 pixels; every seventh is for validation."""
    rng = np.random.default_rng(seed)
    scenes = []
    for number in range(count):
        image = rng.integers(90, 120, (*SIZE, 3)).astype(np.uint8)
        taken = np.zeros(SIZE, bool)
        objects = []
        for _ in range(12):
            category = int(rng.integers(len(CLASSES)))
            mask = _shape(category, rng)
            around = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
            if len(objects) < 4 and not (around & taken).any():
                taken |= mask
                image[mask] = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])[category]
                objects.append((category, mask))
        split = "val" if number % 7 == 6 else "train"
        scenes.append(Scene(f"scene {number + 1:03d}", split, image, objects))
    return scenes


def _shape(category: int, rng: np.random.Generator) -> np.ndarray:
    height, width = SIZE
    mask = np.zeros(SIZE, np.uint8)
    x, y = int(rng.integers(20, width - 20)), int(rng.integers(20, height - 20))
    radius = int(rng.integers(13, 17))
    if category == 1:
        for dx in (-9, 9):
            cv2.circle(mask, (x + dx, y), 7, 1, -1)
    else:
        cv2.circle(mask, (x, y), radius, 1, -1)
        if category == 0:
            cv2.circle(mask, (x, y), radius // 2, 0, -1)
    return mask.astype(bool)


def contours(mask: np.ndarray, outer_only: bool = True) -> list[list[float]]:
    """Return the outlines of a mask as polygons through pixel corners, one per part."""
    grown = cv2.resize(mask.astype(np.uint8), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    mode = cv2.RETR_EXTERNAL if outer_only else cv2.RETR_LIST
    found, _ = cv2.findContours(grown, mode, cv2.CHAIN_APPROX_NONE)
    return [((c.reshape(-1, 2) + 0.5) / 4).ravel().tolist() for c in found]


def rle(mask: np.ndarray, compressed: bool = True) -> dict:
    """Return a mask as COCO's RLE, with text or with a list of counts."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compressed:
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    flat = mask.T.ravel().astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    counts = np.diff(np.concatenate([[0], edges]))
    return {"size": list(mask.shape), "counts": [int(n) for n in counts]}


def filled(mask: np.ndarray) -> np.ndarray:
    """Return the mask with its holes filled."""
    result = np.zeros(mask.shape, np.uint8)
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(result, found, -1, 1, -1)
    return result.astype(bool)


def box(mask: np.ndarray) -> list[float]:
    """Return the box [x, y, width, height] of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def coco_content(
    scenes: Sequence[Scene],
    segmentation: Callable[[int, np.ndarray], object],
    *,
    file_name: Callable[[Scene], str] = lambda scene: f"{scene.name}.png",
    first_id: int = 1,
    **extra: object,
) -> dict:
    """Return COCO JSON; ``segmentation`` gets the number of an annotation and its mask."""
    images, annotations = [], []
    for number, scene in enumerate(scenes, 1):
        height, width = scene.image.shape[:2]
        images.append(
            {"id": number, "file_name": file_name(scene), "width": width, "height": height}
        )
        for category, mask in scene.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category + first_id,
                    "bbox": box(mask),
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": segmentation(len(annotations), mask),
                    **extra,
                }
            )
    categories = [{"id": i + first_id, "name": name} for i, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _by_split(scenes: Sequence[Scene]) -> dict[str, list[Scene]]:
    return {split: [s for s in scenes if s.split == split] for split in ("train", "val")}


def write_coco(
    folder: Path, scenes: Sequence[Scene], segmentation: Callable[[int, np.ndarray], object]
) -> None:
    """Write ``train.json`` with ``train/`` and ``val.json`` with ``val/``."""
    for split, part in _by_split(scenes).items():
        for scene in part:
            _save(folder / split / f"{scene.name}.png", scene.image)
        (folder / f"{split}.json").write_text(json.dumps(coco_content(part, segmentation)))


def write_coco_compressed(folder: Path, scenes: Sequence[Scene]) -> None:
    write_coco(folder, scenes, lambda _, mask: rle(mask))


def write_coco_uncompressed(folder: Path, scenes: Sequence[Scene]) -> None:
    write_coco(folder, scenes, lambda _, mask: rle(mask, compressed=False))


def write_coco_mixed(folder: Path, scenes: Sequence[Scene]) -> None:
    """Compressed and uncompressed RLE, and polygons for objects without holes."""

    def segmentation(number: int, mask: np.ndarray) -> object:
        if len(contours(mask, outer_only=False)) > len(contours(mask)):
            return rle(mask, compressed=number % 2 == 0)
        return contours(mask) if number % 3 == 0 else rle(mask, compressed=number % 2 == 0)

    write_coco(folder, scenes, segmentation)


def write_roboflow(folder: Path, scenes: Sequence[Scene]) -> None:
    """``train/`` and ``valid/`` with images and ``_annotations.coco.json``; an unused class 0."""
    for split, part in _by_split(scenes).items():
        place = folder / {"train": "train", "val": "valid"}[split]
        for scene in part:
            _save(place / f"{scene.name}.png", scene.image)
        content = coco_content(part, lambda _, mask: contours(mask))
        for category in content["categories"]:
            category["supercategory"] = "shapes"
        content["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
        (place / "_annotations.coco.json").write_text(json.dumps(content))


def write_cvat(folder: Path, scenes: Sequence[Scene]) -> None:
    """``annotations/instances_<subset>.json`` and ``images/<subset>``; masks are marked crowd."""
    for split, part in _by_split(scenes).items():
        subset = {"train": "Train", "val": "Validation"}[split]
        for scene in part:
            _save(folder / "images" / subset / f"{scene.name}.png", scene.image)
        content = coco_content(part, lambda _, m: rle(m, compressed=False), iscrowd=1)
        file = folder / "annotations" / f"instances_{subset}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"licenses": [], "info": {}, **content}))


def write_label_studio(folder: Path, scenes: Sequence[Scene]) -> None:
    """``result.json`` and ``images/`` with prefixed names; categories from 0, one split only."""
    for number, scene in enumerate(scenes):
        _save(folder / "images" / f"{number:08x}-{scene.name}.png", scene.image)
    names = {scene.name: f"images/{n:08x}-{scene.name}.png" for n, scene in enumerate(scenes)}
    content = coco_content(
        scenes, lambda _, m: contours(m), file_name=lambda s: names[s.name], first_id=0
    )
    (folder / "result.json").write_text(json.dumps(content))


def write_yolo(folder: Path, scenes: Sequence[Scene]) -> None:
    """``data.yaml``, ``images/<split>`` and ``labels/<split>``; parts are joined by a line."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ", ".join(CLASSES)
    text = f"path: /data/elsewhere\ntrain: images/train\nval: images/val\nnames: [{names}]\n"
    (folder / "data.yaml").write_text(text)
    for scene in scenes:
        _save(folder / "images" / scene.split / f"{scene.name}.png", scene.image)
        lines = []
        for category, mask in scene.objects:
            points = _joined([np.reshape(c, (-1, 2)) for c in contours(mask)])
            shares = points / np.array([SIZE[1], SIZE[0]])
            lines.append(f"{category} " + " ".join(f"{v:.6f}" for v in shares.ravel()))
        file = folder / "labels" / scene.split / f"{scene.name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n")


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Join polygons into one, as converters for YOLO do."""
    points = parts[0]
    for part in parts[1:]:
        distances = ((points[:, None] - part[None]) ** 2).sum(-1)
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        around = np.concatenate([part[j:], part[: j + 1]])
        points = np.concatenate([points[: i + 1], around, points[i:]])
    return points


def write_labelme(folder: Path, scenes: Sequence[Scene]) -> None:
    """One JSON beside each image: polygons joined by ``group_id``, rings as masks."""
    for scene in scenes:
        place = folder / scene.split
        _save(place / f"{scene.name}.png", scene.image)
        shapes = []
        for number, (category, mask) in enumerate(scene.objects):
            common = {"label": CLASSES[category], "group_id": number, "flags": {}}
            if CLASSES[category] == "ring":
                x, y, w, h = box(mask)
                buffer = io.BytesIO()
                Image.fromarray(mask[y : y + h, x : x + w]).save(buffer, "PNG")
                encoded = base64.b64encode(buffer.getvalue()).decode()
                points = [[x, y], [x + w - 1, y + h - 1]]
                shapes.append({**common, "shape_type": "mask", "points": points, "mask": encoded})
            for polygon in contours(mask) if CLASSES[category] != "ring" else ():
                points = np.reshape(polygon, (-1, 2)).tolist()
                shapes.append({**common, "shape_type": "polygon", "points": points})
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{scene.name}.png",
            "imageData": None,
            "imageHeight": SIZE[0],
            "imageWidth": SIZE[1],
        }
        (place / f"{scene.name}.json").write_text(json.dumps(content))


def write_instance_labels(folder: Path, scenes: Sequence[Scene]) -> None:
    """``<split>/images`` and ``<split>/masks``: 16-bit TIFF, one number per object."""
    for scene in scenes:
        _save(folder / scene.split / "images" / f"{scene.name}.png", scene.image)
        numbers = np.zeros(SIZE, np.uint16)
        for number, (_, mask) in enumerate(scene.objects, 1):
            numbers[mask] = 300 * number
        _save(folder / scene.split / "masks" / f"{scene.name}.tif", numbers)


def write_class_masks(folder: Path, scenes: Sequence[Scene], mode: str = "L") -> None:
    """``<split>/`` and ``<split>_labels/``: background is class 0."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(["background", *CLASSES]) + "\n")
    for scene in scenes:
        _save(folder / scene.split / f"{scene.name}.png", scene.image)
        label = np.zeros(SIZE, np.uint8)
        for category, mask in scene.objects:
            label[mask] = category + 1
        image = Image.fromarray(label)
        if mode == "P":
            image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
        file = folder / f"{scene.split}_labels" / f"{scene.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)


def write_coco_panoptic(folder: Path, scenes: Sequence[Scene]) -> None:
    """``panoptic_<split>.json`` and PNGs; the background is stuff."""
    categories = [{"id": i + 1, "name": name, "isthing": 1} for i, name in enumerate(CLASSES)]
    categories.append({"id": 9, "name": "ground", "isthing": 0})
    for split, part in _by_split(scenes).items():
        images, annotations = [], []
        for number, scene in enumerate(part, 1):
            _save(folder / split / f"{scene.name}.png", scene.image)
            ids = np.full(SIZE, 1000, np.int64)
            segments = [{"id": 1000, "category_id": 9, "iscrowd": 0}]
            for index, (category, mask) in enumerate(scene.objects):
                ids[mask] = 70_000 + index
                segments.append({"id": 70_000 + index, "category_id": category + 1, "iscrowd": 0})
            rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
            _save(folder / f"panoptic_{split}" / f"{scene.name}.png", rgb)
            images.append({"id": number, "file_name": f"{scene.name}.png"})
            annotations.append(
                {"image_id": number, "file_name": f"{scene.name}.png", "segments_info": segments}
            )
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"panoptic_{split}.json").write_text(json.dumps(content))


# Name of the dialect: (writer, format, whether masks are lossless, keeps holes, keeps classes).
DIALECTS = {
    "coco_compressed": (write_coco_compressed, "coco", True, True, True),
    "coco_uncompressed": (write_coco_uncompressed, "coco", True, True, True),
    "coco_mixed": (write_coco_mixed, "coco", False, True, True),
    "roboflow": (write_roboflow, "coco", False, False, True),
    "cvat": (write_cvat, "coco", True, True, True),
    "label_studio": (write_label_studio, "coco", False, False, True),
    "yolo": (write_yolo, "yolo", False, False, True),
    "labelme": (write_labelme, "labelme", False, True, True),
    "instance_labels": (write_instance_labels, "instance_labels", True, True, False),
    "coco_panoptic": (write_coco_panoptic, "coco_panoptic", True, True, True),
}
