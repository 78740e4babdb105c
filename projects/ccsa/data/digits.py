"""The digits dataset: COCO-format scenes of handwritten digits, written on first use.

Under ``$DETECTRON2_DATASETS`` (default ``./datasets``), read when this module is imported, as
Detectron2 does for its own datasets:

    digits/{train,val}/000001.jpg                    scenes, 160x160
    digits/annotations/instances_{train,val}.json    COCO instances, category ids 1..10
    digits/annotations/panoptic_{train,val}.json     COCO panoptic, category ids 1..13
    digits/panoptic_{train,val}/000001.png           segment id = R + 256 G + 256^2 B, 0 is void
    digits/panoptic_stuff_{train,val}/000001.png     0 all digits, 1..3 the grounds
    digits/sem_seg_{train,val}/000001.png            0..9 the digits, 10..12 the grounds

Validation scenes are made of scans that no training scene uses.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as coco_mask
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json, load_sem_seg
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic
from iopath.common.file_io import file_lock
from tqdm import tqdm

from ccsa.data.digit_scenes import GROUNDS, SIZE, Scene, draw_scene, load_scans
from ccsa.errors import UserError

VERSION = 1  # of what is written; another one on disk is written anew
COUNTS = {"train": 2000, "val": 300}
SEED = 2020
STAMP = "version.json"

THINGS = [str(digit) for digit in range(10)]
THING_IDS = {digit + 1: digit for digit in range(10)}  # category id in the JSON: class
STUFF_IDS = {len(THINGS) + 1 + i: i for i in range(len(GROUNDS))}
COLOURS = [
    *([230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48]),
    *([145, 30, 180], [70, 240, 240], [240, 50, 230], [210, 245, 60], [250, 190, 212]),
]
GROUND_COLOURS = [[190, 160, 110], [110, 120, 140], [120, 150, 110]]


def datasets_root() -> Path:
    """Where datasets lie: ``$DETECTRON2_DATASETS``, by default ``./datasets``."""
    return Path(os.getenv("DETECTRON2_DATASETS", "datasets"))


def ensure_digits(root: Path | None = None) -> Path:
    """The folder of the dataset, written if it is not there, incomplete or of another version.

    Safe when several processes start together: one writes, the others wait. It is written beside
    its place and renamed when complete.

    Raises:
        UserError: the place holds something else, or cannot be written.
    """
    root = root or datasets_root()
    folder = root / "digits"
    if _is_current(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(str(folder)):
            if not _is_current(folder):  # another process may have been first
                _replace(folder)
    except OSError as error:
        raise UserError(
            f"cannot write the digits dataset to {folder.absolute()} ({error}); "
            "make room there, or name another place: export DETECTRON2_DATASETS=FOLDER"
        ) from error
    return folder


def _is_current(folder: Path) -> bool:
    try:
        return json.loads((folder / STAMP).read_text())["version"] == VERSION
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _replace(folder: Path) -> None:
    ours = (folder / STAMP).exists() or (folder / "annotations").is_dir()
    if folder.exists() and not ours and any(folder.iterdir()):
        raise UserError(
            f"{folder.absolute()} holds something that is not the digits dataset; "
            "move it away, or name another place: export DETECTRON2_DATASETS=FOLDER"
        )
    partial = Path(tempfile.mkdtemp(prefix=".digits-", dir=folder.parent))
    try:
        write_digits(partial / "new")
        if folder.exists():
            os.replace(folder, partial / "old")
        os.replace(partial / "new", folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_digits(folder: Path, counts: dict[str, int] = COUNTS, seed: int = SEED) -> None:
    """Write the whole dataset into ``folder``, which must not exist; the version file comes
    last."""
    for split, count in counts.items():
        _write_split(folder, split, count, seed)
    stamp = {"version": VERSION, "seed": seed, **counts}
    (folder / STAMP).write_text(json.dumps(stamp))


def _write_split(folder: Path, split: str, count: int, seed: int) -> None:
    kinds = ("", "panoptic_", "panoptic_stuff_", "sem_seg_")
    for place in ("annotations", *(f"{kind}{split}" for kind in kinds)):
        (folder / place).mkdir(parents=True, exist_ok=True)
    scans, classes = load_scans(split)
    images, instances, panoptic = [], [], []
    for number in tqdm(range(1, count + 1), desc=f"drawing digits_{split}", unit="scene"):
        rng = np.random.default_rng([seed, split == "val", number])
        scene = draw_scene(rng, scans, classes)
        name = f"{number:06d}"
        images.append({"id": number, "file_name": f"{name}.jpg", "height": SIZE, "width": SIZE})
        found, masks = _instances(scene, number, len(instances) + 1)
        instances += found
        segments, ids = _segments(scene, masks)
        panoptic.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
        labels = scene.ground + len(THINGS)
        for mask, digit in zip(masks, scene.classes, strict=True):
            labels[mask] = digit
        stuff = np.where(labels < len(THINGS), 0, labels - len(THINGS) + 1).astype(np.uint8)
        _write(folder / split / f"{name}.jpg", scene.image)
        # OpenCV writes BGR, so that the lowest byte of an id, its red, comes last.
        rgb = np.stack([ids >> 16, ids >> 8, ids], axis=-1) & 255
        _write(folder / f"panoptic_{split}" / f"{name}.png", rgb.astype(np.uint8))
        _write(folder / f"panoptic_stuff_{split}" / f"{name}.png", stuff)
        _write(folder / f"sem_seg_{split}" / f"{name}.png", labels)
    things = [{"id": i, "name": THINGS[c], "supercategory": "digit"} for i, c in THING_IDS.items()]
    stuffs = [
        {"id": i, "name": GROUNDS[c], "supercategory": "ground"} for i, c in STUFF_IDS.items()
    ]
    for category in things + stuffs:
        category["isthing"] = int(category["id"] in THING_IDS)
    _write_json(folder, f"instances_{split}", images, instances, things)
    _write_json(folder, f"panoptic_{split}", images, panoptic, things + stuffs)


def _instances(scene: Scene, image_id: int, first_id: int) -> tuple[list[dict], list[np.ndarray]]:
    """COCO annotations of a scene, and the masks (H, W) that their polygons draw."""
    annotations, masks = [], []
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
    """Outlines of a mask (H, W) in pixels, to a quarter of a pixel: a contour runs through pixel
    centres, so that of the mask itself would be half a pixel too small all round."""
    fine = cv2.resize(mask.astype(np.uint8), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(cv2.contourArea(outline) for outline in outlines)
    kept = [o for o in outlines if cv2.contourArea(o) >= max(64, 0.05 * largest)] or [
        max(outlines, key=cv2.contourArea)
    ]
    simple = [cv2.approxPolyDP(outline, 1.5, True) for outline in kept]
    return [np.round((o.reshape(-1) + 0.5) / 4, 2).tolist() for o in simple if len(o) >= 3]


def _segments(scene: Scene, masks: list[np.ndarray]) -> tuple[list[dict], np.ndarray]:
    """COCO panoptic segments of a scene, and the map (H, W) of their ids."""
    ids = scene.ground.astype(np.int32) + 1
    category = {1 + ground: category for category, ground in STUFF_IDS.items()}
    for number, (mask, digit) in enumerate(zip(masks, scene.classes, strict=True)):
        ids[mask] = 300 + number  # above 255, so that the second byte is used
        category[300 + number] = int(digit) + 1
    segments = []
    for segment_id in np.unique(ids).tolist():
        where = np.asfortranarray(ids == segment_id, np.uint8)
        rle = coco_mask.encode(where)
        segments.append(
            {
                "id": segment_id,
                "category_id": category[segment_id],
                "area": int(coco_mask.area(rle)),
                "bbox": [int(v) for v in coco_mask.toBbox(rle)],
                "iscrowd": 0,
            }
        )
    return segments, ids


def _write(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise OSError(f"{path} could not be written")


def _write_json(folder: Path, name: str, images, annotations, categories) -> None:
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"{name}.json").write_text(json.dumps(content))


def register_digits(root: Path) -> None:
    """Register ``digits_{train,val}`` and their ``_panoptic`` and ``_sem_seg`` twins."""
    folder = root / "digits"
    for split in COUNTS:
        images = str(folder / split)
        instances = str(folder / "annotations" / f"instances_{split}.json")
        stuff = str(folder / f"panoptic_stuff_{split}")
        semantic = str(folder / f"sem_seg_{split}")
        things = {
            "thing_classes": THINGS,
            "thing_colors": COLOURS,
            "thing_dataset_id_to_contiguous_id": THING_IDS,
        }

        def load_things(name, images=images, instances=instances):
            ensure_digits(root)
            return load_coco_json(instances, images, name)

        def load_semantic(labels, images=images):
            ensure_digits(root)
            return load_sem_seg(labels, images, image_ext="jpg")

        name = f"digits_{split}"
        DatasetCatalog.register(name, lambda n=name, load=load_things: load(n))
        MetadataCatalog.get(name).set(
            evaluator_type="coco", json_file=instances, image_root=images, built_in=True, **things
        )
        name = f"digits_{split}_panoptic"
        DatasetCatalog.register(
            name,
            lambda n=name, t=load_things, s=load_semantic, labels=stuff: merge_to_panoptic(
                t(n), s(labels)
            ),
        )
        MetadataCatalog.get(name).set(
            evaluator_type="coco_panoptic_seg",
            json_file=instances,
            image_root=images,
            panoptic_root=str(folder / f"panoptic_{split}"),
            panoptic_json=str(folder / "annotations" / f"panoptic_{split}.json"),
            sem_seg_root=stuff,
            ignore_label=255,
            stuff_classes=["digits", *GROUNDS],
            stuff_colors=[[128, 128, 128], *GROUND_COLOURS],
            stuff_dataset_id_to_contiguous_id={0: 0, **{k: v + 1 for k, v in STUFF_IDS.items()}},
            built_in=True,
            **things,
        )
        name = f"digits_{split}_sem_seg"
        DatasetCatalog.register(name, lambda load=load_semantic, labels=semantic: load(labels))
        MetadataCatalog.get(name).set(
            evaluator_type="sem_seg",
            image_root=images,
            sem_seg_root=semantic,
            ignore_label=255,
            stuff_classes=[*THINGS, *GROUNDS],
            stuff_colors=[*COLOURS, *GROUND_COLOURS],
            built_in=True,
        )


register_digits(datasets_root())
