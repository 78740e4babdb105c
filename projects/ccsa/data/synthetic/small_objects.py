"""Large images with small objects, written on first use: the dataset on which tiles are measured.

An image has 3,000 x 3,000 pixels and 90 disks, squares and triangles of about 12 pixels on a noisy
ground. Resized to 800 pixels, an object has 3 pixels, and its class can hardly be seen.

    small_objects/{train,val}/000001.jpg
    small_objects/annotations/instances_{train,val}.json    COCO instances, category ids 1..3

The registered names are ``small_objects_{train,val}``.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from tqdm import tqdm

from ccsa.data.colors import class_colors
from ccsa.data.paths import datasets_root
from ccsa.data.synthetic.storage import ensure_written, write_version
from ccsa.utils.images import write_image

VERSION = 1  # of the files; if another version is on disk, it is replaced
SIZE = 3000  # pixels, both sides of an image
OBJECTS = 90  # in an image of 3,000 x 3,000 pixels; COCO's AP counts at most 100 detections
DIAMETER = (10.0, 14.0)  # of the circle around an object, in pixels
CLASSES = ["disk", "square", "triangle"]
COUNTS = {"train": 16, "val": 4}
SEED = 2026
FOLDERS = {"annotations", *COUNTS}
_CORNERS = {"disk": 24, "square": 4, "triangle": 3}
_SHIFT = 4  # fractional bits of the coordinates that OpenCV draws


def ensure_small_objects(root: Path | str | None = None) -> Path:
    """Return the folder ``root/small_objects``; write it if it is missing, incomplete or of another
    version, see :func:`ccsa.data.synthetic.storage.ensure_written`."""
    return ensure_written("small_objects", VERSION, FOLDERS, write_small_objects, root)


def write_small_objects(
    folder: Path, counts: dict[str, int] = COUNTS, size: int = SIZE, seed: int = SEED
) -> None:
    """Write the dataset into ``folder``, which must not exist; the version file is written last.

    Args:
        folder: the folder of the dataset.
        counts: the number of images of each split.
        size: height and width of the images; the number of objects grows with the area.
        seed: of all randomness.
    """
    (folder / "annotations").mkdir(parents=True)
    for split, count in counts.items():
        (folder / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        numbers = range(1, count + 1)
        for number in tqdm(numbers, desc=f"generating dataset small_objects_{split}", unit="image"):
            rng = np.random.default_rng([seed, split == "val", number])
            pixels, objects = draw_image(rng, size)
            name = f"{number:06d}.jpg"
            write_image(folder / split / name, pixels)
            images.append({"id": number, "file_name": name, "height": size, "width": size})
            for entry in objects:
                annotations.append({"id": len(annotations) + 1, "image_id": number, **entry})
        categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = folder / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(content), encoding="utf-8")
    write_version(folder, VERSION, seed, counts)


def draw_image(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return an image (size, size, 3) in RGB, uint8, and its COCO annotations without ids."""
    cells = max(2, size // 100)
    coarse = rng.uniform(90, 165, (cells, cells, 3)).astype(np.float32)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    objects: list[dict[str, Any]] = []
    centers = np.empty((0, 2))
    wanted = max(1, round(OBJECTS * (size / SIZE) ** 2))
    while len(objects) < wanted:
        center = rng.uniform(DIAMETER[1], size - DIAMETER[1], 2)
        if len(centers) and np.abs(centers - center).max(1).min() < 2 * DIAMETER[1]:
            continue  # objects do not touch
        centers = np.vstack([centers, center])
        label = int(rng.integers(len(CLASSES)))
        points = _outline(rng, CLASSES[label], center)
        offset = rng.uniform(45, 80) * rng.choice([-1, 1])
        x, y = center.astype(int)
        color = np.clip(image[y, x] + offset + rng.uniform(-15, 15, 3), 0, 255)
        fixed = np.round((points - 0.5) * 2**_SHIFT).astype(np.int32)  # pixel centers are integers
        cv2.fillPoly(image, [fixed], color.tolist(), cv2.LINE_8, _SHIFT)
        left, top = points.min(0)
        width, height = points.max(0) - points.min(0)
        objects.append(
            {
                "category_id": label + 1,
                "segmentation": [np.round(points, 2).ravel().tolist()],
                "bbox": np.round([left, top, width, height], 2).tolist(),
                "area": float(cv2.contourArea(points.astype(np.float32))),
                "iscrowd": 0,
            }
        )
    noise = rng.standard_normal(image.shape, np.float32)
    return np.clip(image + 6 * noise, 0, 255).astype(np.uint8), objects


def _outline(rng: np.random.Generator, name: str, center: np.ndarray) -> np.ndarray:
    """Return the corners (N, 2) of an object on a circle around its center, x and y in pixels."""
    corners, radius = _CORNERS[name], rng.uniform(*DIAMETER) / 2
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(corners) / corners
    return center + radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def register_small_objects(root: Path) -> None:
    """Register both splits, stored in ``root/small_objects``. The files are written when a split is
    first loaded; the metadata is available at once."""
    folder = root / "small_objects"
    for split in COUNTS:
        name = f"small_objects_{split}"
        json_file = str(folder / "annotations" / f"instances_{split}.json")
        images = str(folder / split)

        def load(name: str = name, file: str = json_file, images: str = images) -> list[dict]:
            ensure_small_objects(root)
            return load_coco_json(file, images, name)

        DatasetCatalog.register(name, load)
        MetadataCatalog.get(name).set(
            evaluator_type="coco",
            json_file=json_file,
            image_root=images,
            built_in=True,
            thing_classes=list(CLASSES),
            thing_colors=class_colors(len(CLASSES)),
            thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(CLASSES))},
        )


register_small_objects(datasets_root())
