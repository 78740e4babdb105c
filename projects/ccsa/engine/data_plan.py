"""A schedule, input size and limits that fit a user's data.

Every decision is one configuration key with its value and the reason, which the log states. What
the user wrote (KEY VALUE pairs, ``--epochs``, and configuration files outside this project) is
never replaced; decisions that depend on such a key start from the user's value.
"""

import logging
import math
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode

from ccsa.data.statistics import Statistics
from ccsa.engine.model_parts import architecture

logger = logging.getLogger(__name__)

STRIDE = 32  # sizes are multiples of it
WANTED_OBJECT = 40.0  # pixels: small objects are enlarged towards this size
VISIBLE_OBJECT = 6.0  # pixels: smaller objects are hardly detected
MAX_ENLARGEMENT = 2.0
SHORT_SIDE = (160, 800)  # pixels
LONG_SIDE = 1333  # pixels; that of Detectron2's detectors
LONGEST_SCENE = 2048  # pixels; that of semantic models that are trained on crops
SMALLEST_ANCHORS = (8.0, 64.0)  # pixels, of the first level
SLENDER = 4.0  # aspect ratio of boxes that need further anchors
COCO_LIMIT = 100  # detections per image
SIMILAR = 0.1  # of sides whose logarithms differ by less
RARE = 0.1  # a class in fewer than this share of the images is repeated
FEWEST = 20  # images; repeating some of fewer images makes little sense
FINE_TUNING_LR = 0.0002  # of AdamW, at most
EVALUATIONS = 8  # during a run
SHORTEST_WARMUP = 60  # iterations; with fewer, random weights may diverge


class Decision(NamedTuple):
    """One configuration key that follows from the data."""

    key: str
    value: Any
    reason: str


def default_epochs(images: int) -> int:
    """Return how often each image is used by default: 12 for a set as large as COCO, and more the
    smaller the set is, at most 300.

    Example:
        >>> [default_epochs(n) for n in (10, 100, 1_000, 118_000)]
        [219, 107, 53, 12]
    """
    return round(min(300.0, max(12.0, 12 * (118_000 / max(images, 1)) ** 0.31)))


def batch_settings(cfg: CfgNode, written: Collection[str], configured: int) -> Iterable[Decision]:
    """Return the decisions that use the batch size of a KEY VALUE pair as it is, although the
    configuration is for a number of processes (``SOLVER.REFERENCE_WORLD_SIZE``).

    Args:
        cfg: the configuration.
        written: the keys that the user wrote.
        configured: ``SOLVER.IMS_PER_BATCH`` in the configuration files, for which their learning
            rate was chosen; 0 if no KEY VALUE pair replaces it.
    """
    solver, batch = cfg.SOLVER, cfg.SOLVER.IMS_PER_BATCH
    reference = "SOLVER.REFERENCE_WORLD_SIZE"
    if not configured or not solver.REFERENCE_WORLD_SIZE or reference in written:
        return
    yield Decision(reference, 0, f"SOLVER.IMS_PER_BATCH {batch} is that of all processes together")
    if batch != configured and "SOLVER.BASE_LR" not in written:
        reason = f"{solver.BASE_LR:g} is for {configured} images per batch, not for {batch}"
        yield Decision("SOLVER.BASE_LR", solver.BASE_LR * batch / configured, reason)


def plan(
    cfg: CfgNode,
    data: Statistics,
    epochs: int | None = None,
    *,
    detector: bool,
    written: Collection[str] = (),
    validation: Statistics | None = None,
) -> list[Decision]:
    """Return the decisions for a configuration, without the keys that the user wrote.

    Args:
        cfg: the configuration: the architecture, the batch size and the kind of schedule.
        data: statistics of the training set.
        epochs: the value of ``--epochs``; by default :func:`default_epochs`.
        detector: whether the model predicts boxes.
        written: the keys that the user wrote.
        validation: statistics of the validation set, whose images may be larger or smaller than
            those of the training set; None if they are like them.
    """
    side = _relative_side(data, validation) if detector else 1.0
    decisions = list(_schedule(cfg, data, epochs, detector, written))
    decisions += _fitted_sizes(
        cfg, list(_input_size(cfg, data, detector, validation, side)), written
    )
    if detector and len(data.object_sizes):
        if "INPUT.MIN_SIZE_TEST" in written:
            size = cfg.INPUT.MIN_SIZE_TEST or data.short
        else:
            size = next(d.value for d in decisions if d.key == "INPUT.MIN_SIZE_TEST")
        lengths = data.object_shares * size / side
        _warn_of_tiny_objects(data, lengths)
        decisions += _anchors(cfg, data, lengths)
        decisions += _limits(cfg, data, validation)
        decisions += _sampler(data)
    return [decision for decision in decisions if decision.key not in written]


def _schedule(
    cfg: CfgNode, data: Statistics, epochs: int | None, detector: bool, written: Collection[str]
) -> Iterable[Decision]:
    solver, images, kind = cfg.SOLVER, data.images, "images"
    if detector and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and data.counts.any():
        images = int((data.counts > 0).sum())
        kind = "images" if images == data.images else "images with objects"
    batch = solver.IMS_PER_BATCH
    if "SOLVER.MAX_ITER" in written:
        iterations = solver.MAX_ITER
    else:
        chosen = epochs or default_epochs(images)
        by = "--epochs" if epochs else "the default for this number of images"
        iterations = max(1, math.ceil(chosen * images / batch))
        reference = solver.REFERENCE_WORLD_SIZE
        scaled = f" by {reference} processes, scaled to the actual number" if reference else ""
        reason = f"{chosen} epochs ({by}) of {images} {kind} in batches of {batch}{scaled}"
        yield Decision("SOLVER.MAX_ITER", iterations, reason)
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        drops = {iterations * 2 // 3, iterations * 8 // 9}
        steps = tuple(sorted(step for step in drops if 0 < step < iterations))
        yield Decision("SOLVER.STEPS", steps, "the learning rate drops at 2/3 and 8/9 of the run")
    if solver.OPTIMIZER == "AdamW" and cfg.MODEL.WEIGHTS and solver.BASE_LR > FINE_TUNING_LR:
        reason = f"lower than {solver.BASE_LR:g}, because training starts from MODEL.WEIGHTS"
        yield Decision("SOLVER.BASE_LR", FINE_TUNING_LR, reason)
    warmup = max(1, iterations // 20, min(SHORTEST_WARMUP, iterations // 5))
    reason = f"5 % of the iterations, but {SHORTEST_WARMUP} to 1000 unless the run is shorter"
    yield Decision("SOLVER.WARMUP_ITERS", min(1000, warmup), reason)
    period = max(1, math.ceil(images / batch), math.ceil(iterations / EVALUATIONS))
    reason = f"{EVALUATIONS} times during the run, but not more than once per epoch"
    yield Decision("TEST.EVAL_PERIOD", period, reason)
    yield Decision("SOLVER.CHECKPOINT_PERIOD", period, reason)


def _relative_side(data: Statistics, validation: Statistics | None) -> float:
    """Return the shorter side of the validation images, relative to that of the training images, if
    the images of both sets have to be enlarged by the same factor.

    This is the case if the objects of both sets have about the same size in pixels, e.g. if the
    training images are tiles. If they cover about the same share of the images, e.g. in photos of
    two cameras, the images of both sets get the same size, and the result is 1.
    """
    if validation is None or not (len(data.object_sizes) and len(validation.object_sizes)):
        return 1.0
    pixels, shares = (
        abs(math.log(np.median(ours) / np.median(theirs)))
        for ours, theirs in (
            (data.object_sizes, validation.object_sizes),
            (data.object_shares, validation.object_shares),
        )
    )
    relative = validation.short / data.short
    return relative if pixels < shares and abs(math.log(relative)) > SIMILAR else 1.0


def _input_size(
    cfg: CfgNode, data: Statistics, detector: bool, validation: Statistics | None, side: float
) -> Iterable[Decision]:
    """Choose the sizes of training and test images, and of crops."""
    if not detector and cfg.INPUT.SEM_SEG.SCALE_RANGE:
        yield from _scene_size(cfg, data)
        return
    factor, why = 1.0, ""
    if detector and len(data.object_shares):
        median = float(np.median(data.object_shares)) * data.short
        if median < WANTED_OBJECT:
            factor = min(MAX_ENLARGEMENT, WANTED_OBJECT / median)
            why = f", enlarged because the median object has {median:.0f} pixels"
    target = min(max(data.short * factor, SHORT_SIDE[0]), SHORT_SIDE[1])
    target = min(target, max(SHORT_SIDE[0], LONG_SIDE * data.short / data.long))
    size = max(STRIDE, int(target / STRIDE + 0.5) * STRIDE)
    longest = min(max(size, math.ceil(size * data.ratio / STRIDE) * STRIDE), max(LONG_SIDE, size))
    reason = f"the images have {data.long} x {data.short} pixels (median){why}"
    longer = "the longer side of 95 % of the images at that scale"
    if side == 1 or validation is None:
        yield Decision("INPUT.MIN_SIZE_TEST", size, reason)
        yield Decision("INPUT.MAX_SIZE_TEST", longest, longer)
        of = "of the test size"
    else:
        test = max(STRIDE, round(size * side))
        sides = f"{validation.long} x {validation.short} pixels (median)"
        shown = f"the validation images have {sides}, at the scale of the training images"
        yield Decision("INPUT.MIN_SIZE_TEST", test, shown)
        most = max(test, math.ceil(test * validation.ratio))
        yield Decision("INPUT.MAX_SIZE_TEST", most, longer)
        of = f"of {size}: {reason}"
    sizes = tuple(sorted({max(STRIDE, round(size * f / STRIDE) * STRIDE) for f in (0.8, 1, 1.2)}))
    yield Decision("INPUT.MIN_SIZE_TRAIN", sizes, f"80, 100 and 120 % {of}")
    largest = math.ceil(longest * sizes[-1] / size)
    yield Decision("INPUT.MAX_SIZE_TRAIN", largest, "the longer side at that scale")
    if not detector:
        yield from _crop_size(cfg, size, max(size, round(size * data.long / data.short)))


def _fitted_sizes(
    cfg: CfgNode, decisions: list[Decision], written: Collection[str]
) -> list[Decision]:
    """Return the decisions on sizes, fitted to the shorter or the longer side that the user wrote,
    because an image of a written shorter side is longer or shorter than one of the chosen side."""
    chosen = {decision.key: decision for decision in decisions}
    for split in ("TRAIN", "TEST"):
        keys = [f"INPUT.{limit}_SIZE_{split}" for limit in ("MIN", "MAX")]
        if not all(key in chosen for key in keys) or (keys[0] in written) == (keys[1] in written):
            continue
        shorter, longer = (chosen[key] for key in keys)
        sizes = shorter.value if split == "TRAIN" else (shorter.value,)
        if keys[0] in written:
            size = cfg.INPUT[f"MIN_SIZE_{split}"]
            largest = max(size) if split == "TRAIN" else size
            length = math.ceil(longer.value * largest / max(sizes))
            chosen[keys[1]] = longer._replace(value=max(longer.value, length))
        else:
            most = cfg.INPUT[f"MAX_SIZE_{split}"]
            kept = tuple(sorted({min(size, most) for size in sizes}))
            chosen[keys[0]] = shorter._replace(value=kept if split == "TRAIN" else kept[0])
    return list(chosen.values())


def _scene_size(cfg: CfgNode, data: Statistics) -> Iterable[Decision]:
    """Choose the sizes of a semantic model whose training images are scaled by a random factor."""
    if data.longest <= LONGEST_SCENE:
        reason = "the images keep their size"
        yield Decision("INPUT.SEM_SEG.LONG_SIDE", 0, reason)
        yield Decision("INPUT.MIN_SIZE_TEST", 0, reason)
        short, long = data.short, data.long
    else:
        long = min(data.long, LONGEST_SCENE)
        short = max(1, round(data.short * long / data.long))
        reason = f"images have up to {data.longest} pixels per side, the median is {data.long}"
        yield Decision("INPUT.SEM_SEG.LONG_SIDE", long, reason)
        yield Decision("INPUT.MIN_SIZE_TEST", long, f"the longer side is {long}, as in training")
        yield Decision("INPUT.MAX_SIZE_TEST", long, f"the longer side is {long}, as in training")
    yield from _crop_size(cfg, short, long)


def _crop_size(cfg: CfgNode, short: int, long: int) -> Iterable[Decision]:
    """Limit crops and tiles of fixed size to the size of the images."""
    if not (cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP.TYPE == "absolute"):
        return
    # Images may stand upright or lie, so that a crop is a square or has the sides of the config.
    rows, columns = (int(n) for n in cfg.INPUT.CROP.SIZE)
    limit = math.ceil((short if rows == columns else long) / STRIDE) * STRIDE
    crop = [min(rows, limit), min(columns, limit)]
    reason = f"at most the size of the images, {long} x {short} pixels"
    yield Decision("INPUT.CROP.SIZE", crop, reason)
    if cfg.TEST.TILES.ENABLED:
        yield Decision("TEST.TILES.SIZE", crop, "the size of the crops in training")
        yield Decision("TEST.TILES.OVERLAP", [n // 3 for n in crop], "1/3 of the tile")


def _warn_of_tiny_objects(data: Statistics, lengths: np.ndarray) -> None:
    """Warn if the input size makes objects too small to be detected."""
    small = float(np.percentile(lengths, 10))
    if small < VISIBLE_OBJECT:
        logger.warning(
            f"10 % of the objects have less than {small:.1f} pixels at the input size (images of "
            f"{data.long} x {data.short} pixels); cut the images into tiles, or raise "
            "INPUT.MIN_SIZE_TRAIN, MIN_SIZE_TEST and the maximum sizes"
        )


def _anchors(cfg: CfgNode, data: Statistics, lengths: np.ndarray) -> Iterable[Decision]:
    """Choose anchors from small to large objects; each level of a pyramid doubles their size."""
    low, high = (float(n) for n in np.percentile(lengths, (5, 95)))
    given = cfg.MODEL.ANCHOR_GENERATOR.SIZES
    levels = len(given)
    smallest = 2.0 ** math.floor(math.log2(min(max(low, 1.0), 2.0**20)))
    smallest = min(max(smallest, SMALLEST_ANCHORS[0]), SMALLEST_ANCHORS[1])
    # Anchors match objects of up to 1.5 times their size.
    needed = max(2, math.ceil(math.log2(max(high / 1.5, smallest) / smallest)) + 1)
    if levels < 2:
        sizes = [[int(smallest * 2**i) for i in range(max(5, needed))]]
    elif len(given[0]) > 1:
        octaves = [2 ** (i / len(given[0])) for i in range(len(given[0]))]
        sizes = [[round(smallest * 2**i * octave, 1) for octave in octaves] for i in range(levels)]
    elif needed <= levels:
        sizes = [[int(smallest * 2**i)] for i in range(levels)]
    else:  # too few levels: each has two sizes, and steps are larger
        step = 2.0 ** ((needed - 1) / (levels - 1))
        sizes = [[round(smallest * step**i * f) for f in (1, step**0.5)] for i in range(levels)]
    reason = f"90 % of the objects have {low:.0f} to {high:.0f} pixels at the input size"
    yield Decision("MODEL.ANCHOR_GENERATOR.SIZES", sizes, reason)
    spread = np.maximum(data.object_ratios, 1 / data.object_ratios)
    slender = float(np.percentile(spread, 90))
    ratios = [0.25, 0.5, 1.0, 2.0, 4.0] if slender > SLENDER else [0.5, 1.0, 2.0]
    reason = f"90 % of the boxes have an aspect ratio of at most {slender:.1f}"
    yield Decision("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [ratios], reason)


def _limits(cfg: CfgNode, data: Statistics, validation: Statistics | None) -> Iterable[Decision]:
    """Choose the limits on detections, proposals and samples."""
    most = {"TRAIN": int(data.counts.max())}
    most["TEST"] = max(most["TRAIN"], int((validation or data).counts.max(initial=0)))
    reasons = {phase: f"an image has up to {number} objects" for phase, number in most.items()}
    limit = max(COCO_LIMIT, math.ceil(1.5 * most["TEST"] / 50) * 50)
    yield Decision("TEST.DETECTIONS_PER_IMAGE", limit, reasons["TEST"])
    if architecture(cfg) == "RetinaNet":
        candidates = max(1000, 2 * limit)
        yield Decision("MODEL.RETINANET.TOPK_CANDIDATES_TEST", candidates, reasons["TEST"])
        return
    for phase, number in most.items():
        limit = max(COCO_LIMIT, math.ceil(1.5 * number / 50) * 50)
        # Without a pyramid, one level has to offer the candidates of all sizes.
        kept = max(500, min(2000, 5 * limit), 2 * limit)
        before = kept * (2 if len(cfg.MODEL.RPN.IN_FEATURES) > 1 else 6)
        yield Decision(f"MODEL.RPN.PRE_NMS_TOPK_{phase}", before, reasons[phase])
        yield Decision(f"MODEL.RPN.POST_NMS_TOPK_{phase}", kept, reasons[phase])
    sampled = min(512, max(128, 2 ** math.ceil(math.log2(4 * max(most["TRAIN"], 1)))))
    for key in ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"):
        yield Decision(key, sampled, reasons["TRAIN"])


def _sampler(data: Statistics) -> Iterable[Decision]:
    """Repeat images with rare classes.

    Semantic models do not use it: reading the classes of all label images takes long, and most
    images contain most of their classes.
    """
    shares = {name: n / data.images for name, n in data.class_images.items() if n}
    rare = [name for name, share in shares.items() if share < RARE]
    if len(shares) > 1 and rare and data.images >= FEWEST:
        yield Decision(
            "DATALOADER.SAMPLER_TRAIN",
            "RepeatFactorTrainingSampler",
            f"{', '.join(rare[:3])}{' and others' if len(rare) > 3 else ''} occur in fewer than "
            f"{100 * RARE:.0f} % of the images",
        )
        yield Decision("DATALOADER.REPEAT_THRESHOLD", RARE, "images with rare classes are repeated")
