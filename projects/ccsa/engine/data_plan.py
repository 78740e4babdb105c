"""A schedule, input size and limits that fit a user's data.

Every decision is one configuration key with its value and the reason, which the log states. What
the user wrote (KEY VALUE pairs and configuration files outside this project) is never replaced.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode

from ccsa.data.statistics import Statistics

STRIDE = 32  # sizes are multiples of it
WANTED_OBJECT = 32.0  # pixels: small objects are enlarged towards this size
MAX_ENLARGEMENT = 2.0
SHORT_SIDE = (160, 800)  # pixels
LONG_SIDE = 1333
COCO_LIMIT = 100  # detections per image
RARE = 0.1  # a class in fewer than this share of the images is repeated
EVALUATIONS = 8  # during a run


class Decision(NamedTuple):
    """One configuration key that follows from the data."""

    key: str
    value: Any
    reason: str


def default_epochs(images: int) -> int:
    """Return how often each image is used by default: 12 for a set as large as COCO, and more the
    smaller the set is (50 for 1,000 images, 100 for 100), at most 300."""
    return round(min(300.0, max(12.0, 12 * (118_000 / max(images, 1)) ** 0.31)))


def plan(cfg: CfgNode, data: Statistics, epochs: int | None, detector: bool) -> list[Decision]:
    """Return the decisions for a configuration.

    Args:
        cfg: the configuration, for the batch size and the kind of schedule.
        data: statistics of the training set.
        epochs: as the user said; by default :func:`default_epochs`.
        detector: whether the model predicts boxes.
    """
    decisions = list(_schedule(cfg, data, epochs))
    decisions += _input_size(cfg, data, detector)
    if detector and len(data.object_sizes):
        scale = _scale(decisions, cfg, data)
        decisions += _anchors(cfg, data, scale)
        decisions += _limits(cfg, data)
        decisions += _sampler(cfg, data)
    return decisions


def _schedule(cfg: CfgNode, data: Statistics, epochs: int | None) -> Iterable[Decision]:
    batch = cfg.SOLVER.IMS_PER_BATCH
    chosen = epochs or default_epochs(data.images)
    said = "--epochs" if epochs else "by default for this number of images"
    iterations = max(1, math.ceil(chosen * data.images / batch))
    yield Decision(
        "SOLVER.MAX_ITER",
        iterations,
        f"{chosen} epochs ({said}) of {data.images} images in batches of {batch}",
    )
    if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        steps = tuple(sorted({max(1, iterations * 2 // 3), max(1, iterations * 8 // 9)}))
        yield Decision("SOLVER.STEPS", steps, "the learning rate drops at 2/3 and 8/9 of the run")
    warmup = min(1000, max(1, iterations // 20))
    yield Decision("SOLVER.WARMUP_ITERS", warmup, "5 % of the iterations, at most 1000")
    period = max(1, math.ceil(data.images / batch), iterations // EVALUATIONS)
    reason = f"{EVALUATIONS} times during the run, not more than once per epoch"
    yield Decision("TEST.EVAL_PERIOD", period, reason)
    yield Decision("SOLVER.CHECKPOINT_PERIOD", period, reason)


def _input_size(cfg: CfgNode, data: Statistics, detector: bool) -> Iterable[Decision]:
    short, long = min(data.size), max(data.size)
    factor, why = 1.0, "the median size of the images"
    if detector and len(data.object_sizes):
        median = float(np.median(data.object_sizes))
        if median < WANTED_OBJECT:
            factor = min(MAX_ENLARGEMENT, WANTED_OBJECT / median)
            why = f"enlarged {factor:.1f} times, because the median object has {median:.0f} pixels"
    target = min(max(short * factor, SHORT_SIDE[0]), SHORT_SIDE[1])
    if long * target / short > LONG_SIDE:
        target = LONG_SIDE * short / long
    size = max(STRIDE, int(target / STRIDE + 0.5) * STRIDE)
    longest = max(size, math.ceil(long * size / short / STRIDE) * STRIDE)
    reason = f"images of {data.size[1]} x {data.size[0]} pixels: {why}"
    yield Decision("INPUT.MIN_SIZE_TEST", size, reason)
    yield Decision("INPUT.MAX_SIZE_TEST", longest, "the longer side at that scale")
    if not detector and (cfg.INPUT.CROP.ENABLED or cfg.INPUT.SEM_SEG.SCALE_RANGE):
        crop = [max(STRIDE, n * size // short // STRIDE * STRIDE) for n in data.size]
        crop = [min(c, w) for c, w in zip(crop, _crop_limit(cfg), strict=True)]
        yield Decision("INPUT.CROP.SIZE", crop, "at most the size of the images")
        return
    sizes = tuple(sorted({max(STRIDE, round(size * f / STRIDE) * STRIDE) for f in (0.8, 1, 1.2)}))
    yield Decision("INPUT.MIN_SIZE_TRAIN", sizes, "80, 100 and 120 % of the test size")
    yield Decision(
        "INPUT.MAX_SIZE_TRAIN", math.ceil(longest * 1.2), "the longer side at that scale"
    )


def _crop_limit(cfg: CfgNode) -> tuple[int, int]:
    size = cfg.INPUT.CROP.SIZE
    absolute = cfg.INPUT.CROP.TYPE == "absolute"
    return (int(size[0]), int(size[1])) if absolute else (10**6, 10**6)


def _scale(decisions: Iterable[Decision], cfg: CfgNode, data: Statistics) -> float:
    """Return the factor between the images and the input of the model at test time."""
    planned = {d.key: d.value for d in decisions}
    size = planned.get("INPUT.MIN_SIZE_TEST", cfg.INPUT.MIN_SIZE_TEST)
    return size / min(data.size)


def _anchors(cfg: CfgNode, data: Statistics, scale: float) -> Iterable[Decision]:
    """Choose anchors from the smallest common objects up; each level of an FPN doubles them."""
    low, high = np.percentile(data.object_sizes * scale, (10, 90))
    levels = len(cfg.MODEL.ANCHOR_GENERATOR.SIZES)
    if levels < 2:
        return
    smallest = 2.0 ** math.floor(math.log2(max(low, 8.0)))
    smallest = min(max(smallest, 8.0), 64.0)
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" or len(cfg.MODEL.ANCHOR_GENERATOR.SIZES[0]) > 1:
        octaves = [2 ** (i / 3) for i in range(3)]
        sizes = [[round(smallest * 2**i * o, 1) for o in octaves] for i in range(levels)]
    else:
        sizes = [[int(smallest * 2**i)] for i in range(levels)]
    yield Decision(
        "MODEL.ANCHOR_GENERATOR.SIZES",
        sizes,
        f"80 % of the objects have {low:.0f} to {high:.0f} pixels at the input size",
    )


def _limits(cfg: CfgNode, data: Statistics) -> Iterable[Decision]:
    most = int(data.counts.max())
    limit = max(COCO_LIMIT, math.ceil(1.5 * most / 50) * 50)
    reason = f"an image has up to {most} objects"
    yield Decision("TEST.DETECTIONS_PER_IMAGE", limit, reason)
    after = min(2000, max(500, 5 * limit))
    for phase, factor in (("TRAIN", 1), ("TEST", 1)):
        yield Decision(f"MODEL.RPN.PRE_NMS_TOPK_{phase}", 2 * after * factor, reason)
        yield Decision(f"MODEL.RPN.POST_NMS_TOPK_{phase}", after * factor, reason)
    sampled = int(min(512, max(128, 2 ** math.ceil(math.log2(4 * max(most, 1))))))
    yield Decision("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", sampled, reason)


def _sampler(cfg: CfgNode, data: Statistics) -> Iterable[Decision]:
    shares = {name: n / data.images for name, n in data.class_images.items() if n}
    rare = [name for name, share in shares.items() if share < RARE]
    if len(shares) > 1 and rare and data.images >= 20:
        yield Decision(
            "DATALOADER.SAMPLER_TRAIN",
            "RepeatFactorTrainingSampler",
            f"{', '.join(rare[:3])}{' and others' if len(rare) > 3 else ''} occur in fewer than "
            f"{100 * RARE:.0f} % of the images",
        )
        yield Decision("DATALOADER.REPEAT_THRESHOLD", RARE, "images with rare classes are repeated")
