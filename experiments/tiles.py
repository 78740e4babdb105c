"""What tiles of large images cost, and how often they repeat an object.

    python -m experiments.tiles seams output/small_objects/mask_rcnn/1
    python -m experiments.tiles memory --height 6000 --width 8000

``seams`` predicts the validation images of a run and counts objects that are found more than once:
objects (score at least 0.5) of which at least half lies inside another one of the same class with a
higher score, at seams (where tiles overlap) and elsewhere.
``memory`` predicts a random image with Mask R-CNN of random weights (configs/mask_rcnn.yaml,
ResNet-50, tiles of 1,024 pixels), and prints the largest memory of the process.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as coco_mask
from detectron2.data import DatasetCatalog

from ccsa import Predictor
from ccsa.data.tile_grid import tile_areas
from ccsa.engine import setup_cfg
from ccsa.errors import UserError, reports_user_errors
from ccsa.utils.memory import peak_memory

INSIDE = 0.5  # the share of an object inside another one from which it is a duplicate
MEMORY_OPTIONS = [
    *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "0"),
    *("TEST.TILES.ENABLED", "True", "TEST.TILES.SIZE", "[1024, 1024]"),
    *("TEST.TILES.OVERLAP", "[128, 128]"),
]


def duplicates(entries: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return which of the objects of an image (N,) repeat another one of their class.

    Args:
        entries: of :meth:`ccsa.prediction.Prediction.to_coco`, with masks.

    Example:
        >>> entry = {"category_id": 1, "segmentation": {"size": [1, 3], "counts": "02"}}
        >>> duplicates([{**entry, "score": 0.9}, {**entry, "score": 0.6}]).tolist()
        [False, True]
    """
    masks = [entry["segmentation"] for entry in entries]
    if not masks:
        return np.zeros(0, bool)
    scores = np.array([entry["score"] for entry in entries])
    classes = np.array([entry["category_id"] for entry in entries])
    # With "crowd", the intersection is divided by the area of the first mask.
    inside = coco_mask.iou(masks, masks, [1] * len(masks)) >= INSIDE
    higher = scores[None, :] > scores[:, None]
    ties = np.triu(scores[None, :] == scores[:, None], 1).T
    return (inside & (higher | ties) & (classes[None, :] == classes[:, None])).any(1)


def at_seams(entries: Sequence[dict[str, Any]], shared: np.ndarray) -> np.ndarray:
    """Return which objects (N,) have a box that reaches pixels (H, W) of several tiles."""
    found = []
    for entry in entries:
        left, top, width, height = entry["bbox"]
        rows = slice(int(top), int(np.ceil(top + height)))
        found.append(shared[rows, int(left) : int(np.ceil(left + width))].any())
    return np.array(found, bool)


class Counts(NamedTuple):
    """Objects, and duplicates among them, at seams and elsewhere."""

    at_seams: int
    repeated_at_seams: int
    elsewhere: int
    repeated_elsewhere: int


def seams(run: str, options: Sequence[str] = ()) -> Counts:
    """Return how many objects a run finds in its validation images, and how many are duplicates.

    Raises:
        UserError: the run has no tiles or no masks.
    """
    predictor = Predictor.from_run(run, options=options)
    cfg = predictor.cfg
    if not cfg.TEST.TILES.ENABLED or not cfg.MODEL.MASK_ON or cfg.INPUT.MIN_SIZE_TEST:
        raise UserError(
            f"{run} does not use TEST.TILES with a model of masks and INPUT.MIN_SIZE_TEST 0; name "
            "such a run"
        )
    total = np.zeros(4, int)
    for record in DatasetCatalog.get(cfg.DATASETS.TEST[0]):
        entries = predictor(record["file_name"]).to_coco()
        tiles = np.zeros((record["height"], record["width"]), np.uint8)
        for area in tile_areas(tiles.shape, cfg.TEST.TILES.SIZE, cfg.TEST.TILES.OVERLAP):
            tiles[area.selector] += 1
        seam, repeated = at_seams(entries, tiles > 1), duplicates(entries)
        total += [
            *(seam.sum(), (repeated & seam).sum()),
            *((~seam).sum(), (repeated & ~seam).sum()),
        ]
    return Counts(*total.tolist())


def memory(config_file: str, height: int, width: int, options: Sequence[str]) -> tuple[int, float]:
    """Return the number of objects and the seconds of a prediction for a random image."""
    args = argparse.Namespace(config_file=config_file, opts=[*MEMORY_OPTIONS, *options])
    predictor = Predictor.of(setup_cfg(args), confidence=0.0)
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    start = time.perf_counter()
    entries = predictor(image).to_coco()
    return len(entries), time.perf_counter() - start


@reports_user_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.tiles",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("seams", help="count objects that are found more than once")
    command.add_argument("run", help="the folder of a run with TEST.TILES")
    command.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    command = commands.add_parser("memory", help="measure the memory of a large image")
    command.add_argument("--config-file", default="configs/mask_rcnn.yaml", metavar="FILE")
    command.add_argument("--height", type=int, default=6000)
    command.add_argument("--width", type=int, default=8000)
    command.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    if args.command == "seams":
        counts = seams(args.run, args.opts)
        print(f"at seams: {counts.repeated_at_seams} of {counts.at_seams} objects are duplicates")
        print(f"elsewhere: {counts.repeated_elsewhere} of {counts.elsewhere}")
        return
    found, seconds = memory(args.config_file, args.height, args.width, args.opts)
    peak = (peak_memory() or 0) / 2**30
    size = f"{args.width} x {args.height}"
    print(f"{found} objects in an image of {size} pixels: {peak:.2f} GiB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
