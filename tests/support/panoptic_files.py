"""Panoptic files for the tests.

As a program, it writes the files of COCO's size whose evaluation docs/BENCHMARKS.md times, run from
the folder ``tests``:

    python -m support.panoptic_files FOLDER --images 1000
"""

import argparse
import json
from pathlib import Path

import numpy as np
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from PIL import Image

from support import layouts

CATEGORIES = [
    {"id": number, "name": name, "isthing": isthing}
    for number, name, isthing in ((1, "cat", 1), (3, "dog", 1), (7, "sky", 0), (9, "sea", 0))
]


def write_png(path: Path, ids: np.ndarray) -> None:
    """Write a panoptic PNG, independently of the writer of the project, which it checks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = [ids % 256, ids // 256 % 256, ids // 65536]
    Image.fromarray(np.stack(rgb, -1).astype(np.uint8)).save(path)


def write_json(path: Path, annotations: list[dict], categories=CATEGORIES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": a["image_id"], "file_name": f"{a['image_id']}.jpg"} for a in annotations]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def paint(rng, size, segments: int, crowds: float = 0.0) -> tuple[np.ndarray, list[dict]]:
    """Return segment ids (H, W) of rectangles and ellipses on void, and the visible segments."""
    ids = np.zeros(size, np.int64)
    category = {}
    for number in rng.choice(256**3 - 1, segments, replace=False) + 1:
        y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
        h, w = (rng.integers(2, max(3, n // 2)) for n in size)
        part = (slice(max(0, y - h), y + h), slice(max(0, x - w), x + w))
        seen = ids[part]  # a view
        down = abs(np.arange(part[0].start, part[0].start + len(seen)) - y)[:, None] / h
        right = abs(np.arange(part[1].start, part[1].start + seen.shape[1]) - x) / w
        far = np.hypot(down, right) if rng.random() < 0.5 else np.maximum(down, right)
        seen[far <= 0.5] = number
        category[int(number)] = int(rng.choice([c["id"] for c in CATEGORIES]))
    return ids, describe(ids, category, lambda: int(rng.random() < crowds))


def describe(ids: np.ndarray, category: dict[int, int], iscrowd=lambda: 0) -> list[dict]:
    found, areas = np.unique(ids[ids > 0], return_counts=True)
    return [
        {"id": n, "category_id": category[n], "area": a, "iscrowd": iscrowd()}
        for n, a in zip(found.tolist(), areas.tolist(), strict=True)
    ]


def roughen(rng, ids: np.ndarray) -> np.ndarray:
    """Return ids with uneven borders like real annotations: each pixel takes a neighbor's id."""
    at = np.indices(ids.shape) + rng.integers(-1, 2, (2, *ids.shape))
    return ids[at[0].clip(0, ids.shape[0] - 1), at[1].clip(0, ids.shape[1] - 1)]


def disturb(rng, ids: np.ndarray, segments: list[dict]) -> tuple[np.ndarray, list[dict]]:
    """Return a prediction that resembles a ground truth: shifted, and some segments get another
    category or are left out."""
    moved = np.roll(ids, rng.integers(-2, 3, 2), (0, 1))
    category = {s["id"]: s["category_id"] for s in segments}
    for number in category:
        if rng.random() < 0.2:
            category[number] = int(rng.choice([c["id"] for c in CATEGORIES]))
        if rng.random() < 0.15:
            moved = np.where(moved == number, 0, moved)
    return moved, [{k: s[k] for k in ("id", "category_id")} for s in describe(moved, category)]


def street(things: bool) -> np.ndarray:
    """Return segment ids (H, W) as csCreatePanopticImgs writes them: category id * 1000 + instance,
    or the category id for stuff and for groups of things. The last row is void."""
    ids = np.full(layouts.SIZE, 23)
    ids[8:] = 7
    if things:
        ids[10:16, 2:10] = 26000
        ids[10:16, 12:18] = ids[20:22, 12:14] = 26001  # in two parts
        ids[0:9, 0:2] = 24003  # from the first pixel on
        ids[18:23, 4:9] = 25  # a group of riders
    ids[23:] = 0
    return ids


def cityscapes(root: Path) -> None:
    """Write three images of train and one of val, with labels of the 19 classes and the panoptic
    files that cityscapesscripts makes. The second image of train has no things."""
    layouts.cityscapes(root)
    base = root / "cityscapes" / "gtFine"
    isthing = {c["id"]: c["isthing"] for c in CITYSCAPES_CATEGORIES}
    for split in ("train", "val"):
        images, entries = [], []
        for number, path in enumerate(sorted((base / split).glob("*/*_labelIds.png"))):
            stem = path.name.removesuffix("_gtFine_labelIds.png")
            trained = path.with_name(path.name.replace("_labelIds", "_labelTrainIds"))
            layouts.write_gray(trained, layouts.spread([0, 1]))
            file = f"{stem}_gtFine_panoptic.png"
            ids = street(things=number != 1)
            write_png(base / f"cityscapes_panoptic_{split}" / file, ids)
            category = {int(n): int(n) if n < 1000 else int(n) // 1000 for n in np.unique(ids)}
            infos = describe(ids, category)
            for info in infos:
                info["iscrowd"] = int(info["id"] < 1000 and isthing[info["category_id"]])
            entries.append({"image_id": stem, "file_name": file, "segments_info": infos})
            name = f"{stem}_gtFine_leftImg8bit.png"  # the name in the JSON, which no file has
            images.append({"id": stem, "width": 32, "height": 24, "file_name": name})
        content = {"images": images, "annotations": entries, "categories": CITYSCAPES_CATEGORIES}
        (base / f"cityscapes_panoptic_{split}.json").write_text(json.dumps(content))


def write_pair(
    folder: Path, images: int, size=(30, 40), segments: int = 8, seed: int = 0, rough: bool = False
) -> Path:
    """Write ``folder/{gt,pred}.json`` and PNGs in ``folder/{gt,pred}``, with crowds and void."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for number in range(1, images + 1):
        ids, true = paint(rng, size, segments, crowds=0.1)
        if rough:
            category = {s["id"]: s["category_id"] for s in true}
            ids = roughen(rng, ids)
            true = describe(ids, category)
        predicted, guessed = disturb(rng, ids, true)
        for name, values, infos, entries in (
            ("gt", ids, true, truth),
            ("pred", predicted, guessed, found),
        ):
            file = f"{number:012d}.png"
            write_png(folder / name / file, values)
            entries.append({"image_id": number, "file_name": file, "segments_info": infos})
    write_json(folder / "gt.json", truth)
    write_json(folder / "pred.json", found)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    args = parser.parse_args()
    write_pair(args.folder, args.images, size=(480, 640), segments=16, rough=True)
