"""Writing of the digit scenes in COCO's formats: instances, panoptic and semantic labels.

The mask of a digit is its filled outline (COCO polygons cannot have holes) without the parts that
other digits hide. The polygons are the ground truth: areas, boxes, panoptic segments and semantic
labels are made from the pixels that pycocotools finds in them. A pixel in two polygons belongs to
the digit in front.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as coco_mask
from tqdm import tqdm

from ccsa.data.formats.panoptic_png import ids_to_rgb
from ccsa.data.synthetic.digit_scenes import GROUNDS, SIZE, Scene, draw_scene, load_scans
from ccsa.utils.images import write_image

THINGS = [str(digit) for digit in range(10)]
THING_IDS = {digit + 1: digit for digit in range(10)}  # category id: class
STUFF_IDS = {len(THINGS) + 1 + i: i for i in range(len(GROUNDS))}
KINDS = ("", "panoptic_", "panoptic_stuff_", "sem_seg_")  # folders of a split: images, then labels


def write_split(folder: Path, split: str, count: int, seed: int) -> None:
    """Write ``count`` scenes of ``split`` (train or val) and their annotations into ``folder``."""
    for name in ("annotations", *(f"{kind}{split}" for kind in KINDS)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    scans, classes = load_scans(split)
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    for number in tqdm(
        range(1, count + 1), desc=f"generating dataset digits_{split}", unit="scene"
    ):
        rng = np.random.default_rng([seed, split == "val", number])
        scene = draw_scene(rng, scans, classes)
        name = f"{number:06d}"
        images.append({"id": number, "file_name": f"{name}.jpg", "height": SIZE, "width": SIZE})
        annotations, masks = _instances(scene, number, len(instances) + 1)
        instances += annotations
        segments, ids = _segments(scene, masks)
        panoptic.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
        labels = scene.ground + len(THINGS)
        for mask, digit in zip(masks, scene.classes, strict=True):
            labels[mask] = digit
        stuff = np.where(labels < len(THINGS), 0, labels - len(THINGS) + 1).astype(np.uint8)
        write_image(folder / split / f"{name}.jpg", scene.image)
        write_image(folder / f"panoptic_{split}" / f"{name}.png", ids_to_rgb(ids))
        write_image(folder / f"panoptic_stuff_{split}" / f"{name}.png", stuff)
        write_image(folder / f"sem_seg_{split}" / f"{name}.png", labels)
    things = [{"id": i, "name": THINGS[c], "supercategory": "digit"} for i, c in THING_IDS.items()]
    stuffs = [
        {"id": i, "name": GROUNDS[c], "supercategory": "ground"} for i, c in STUFF_IDS.items()
    ]
    for category in things + stuffs:
        category["isthing"] = int(category["id"] in THING_IDS)
    _write_json(folder, f"instances_{split}", images, instances, things)
    _write_json(folder, f"panoptic_{split}", images, panoptic, things + stuffs)


def _instances(scene: Scene, image_id: int, first_id: int) -> tuple[list[dict], list[np.ndarray]]:
    """Return the COCO annotations of a scene, and the masks (H, W) of their polygons."""
    annotations: list[dict] = []
    masks: list[np.ndarray] = []
    for mask, digit in zip(scene.masks, scene.classes, strict=True):
        polygons = _polygons(mask)
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, SIZE, SIZE))
        masks.append(coco_mask.decode(rle).astype(bool))
        annotations.append(
            {
                "id": first_id + len(annotations),
                "image_id": image_id,
                "category_id": int(digit) + 1,
                "segmentation": polygons,
                "area": float(coco_mask.area(rle)),
                "bbox": [float(v) for v in coco_mask.toBbox(rle)],
                "iscrowd": 0,
            }
        )
    return annotations, masks


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Return the outlines of a mask (H, W) in pixels, to a quarter of a pixel.

    A contour runs through the centers of pixels, so the contour of the mask itself would be half a
    pixel too small on every side; therefore the mask is magnified four times.
    """
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    fine = mask[y : y + h, x : x + w].astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    outlines, _ = cv2.findContours(
        fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(4 * x, 4 * y)
    )
    largest = max(cv2.contourArea(outline) for outline in outlines)
    kept = [o for o in outlines if cv2.contourArea(o) >= max(64, 0.05 * largest)] or [
        max(outlines, key=cv2.contourArea)
    ]
    simple = [cv2.approxPolyDP(outline, 1.5, True) for outline in kept]
    return [np.round((o.reshape(-1) + 0.5) / 4, 2).tolist() for o in simple if len(o) >= 3]


def _segments(scene: Scene, masks: list[np.ndarray]) -> tuple[list[dict], np.ndarray]:
    """Return the COCO panoptic segments of a scene, and the segment ids (H, W)."""
    ids = scene.ground.astype(np.int32) + 1
    category = {1 + ground: category for category, ground in STUFF_IDS.items()}
    for number, (mask, digit) in enumerate(zip(masks, scene.classes, strict=True)):
        ids[mask] = 300 + number  # above 255, so that ids use two bytes
        category[300 + number] = int(digit) + 1
    segments = []
    for segment_id, category_id in category.items():
        where = (ids == segment_id).astype(np.uint8)
        if area := cv2.countNonZero(where):
            segments.append(
                {
                    "id": segment_id,
                    "category_id": category_id,
                    "area": area,
                    "bbox": list(cv2.boundingRect(where)),
                    "iscrowd": 0,
                }
            )
    return segments, ids


def _write_json(
    folder: Path, name: str, images: list[dict], annotations: list[dict], categories: list[dict]
) -> None:
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"{name}.json").write_text(json.dumps(content))
