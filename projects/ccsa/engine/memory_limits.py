"""Checks for settings that need more memory than the machine has, whatever else it does.

Only lower bounds are compared: the weights with their gradients, and one batch of images. What
passes may still need too much, which :func:`ccsa.errors.out_of_memory` reports.
"""

import argparse

import torch
from detectron2.config import CfgNode
from torch import nn

from ccsa.errors import UserError
from ccsa.modeling.clip import takes_clips
from ccsa.utils.memory import total_memory

_FLOAT = 4  # bytes


def check_memory(cfg: CfgNode, model: nn.Module, args: argparse.Namespace) -> None:
    """Compare lower bounds of the memory of a run with the memory of its device.

    Args:
        cfg: the configuration of the run.
        model: its model, which may be on the meta device.
        args: ``num_gpus``, ``num_machines`` and ``eval_only``.

    Raises:
        UserError: a setting needs more memory than there is; the message says which one.
    """
    available = total_memory(torch.device(cfg.MODEL.DEVICE))
    if available is None:
        return
    training = not args.eval_only
    copies = 2 if training else 1  # gradients
    weights = _FLOAT * copies * sum(parameter.numel() for parameter in model.parameters())
    if weights > available:
        raise UserError(
            f"the weights of the model{' and their gradients' * training} need "
            f"{_size(weights)}, but {cfg.MODEL.DEVICE} has {_size(available)}; use a smaller model "
            "(the widths and depths under MODEL, or fewer classes)"
        )
    world = cfg.SOLVER.REFERENCE_WORLD_SIZE or args.num_gpus * args.num_machines
    frames = cfg.INPUT.CLIP.FRAMES if takes_clips(cfg) else 1
    images = max(1, cfg.SOLVER.IMS_PER_BATCH // (world * cfg.SOLVER.ACCUMULATE)) * frames
    sizes = []
    if training:
        sizes.append((*_training_size(cfg), images))
    if cfg.DATASETS.TEST:
        sizes.append((*_test_size(cfg), frames))
    for keys, (height, width), count in sizes:
        needed = _FLOAT * len(cfg.MODEL.PIXEL_MEAN) * height * width * count
        if needed > available:
            batch = f" of {count} images" * (count > 1)
            raise UserError(
                f"{keys} asks for images of {height:.0f} x {width:.0f} pixels, of which a batch"
                f"{batch} needs at least {_size(needed)}, but {cfg.MODEL.DEVICE} has "
                f"{_size(available)}; use smaller images or fewer at a time"
            )


def _training_size(cfg: CfgNode) -> tuple[str, tuple[float, float]]:
    """Return the keys that determine the size of a training image, and the size for square images:
    height and width in pixels."""
    crop, scale = cfg.INPUT.CROP, cfg.INPUT.SEM_SEG
    if crop.ENABLED and crop.TYPE == "absolute":
        return "INPUT.CROP.SIZE", (float(crop.SIZE[0]), float(crop.SIZE[1]))
    side = float(min(max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN))
    keys = "INPUT.MIN_SIZE_TRAIN"
    if scale.SCALE_RANGE:
        keys, side = "INPUT.SEM_SEG.SCALE_RANGE", scale.SCALE_RANGE[1] * scale.LONG_SIDE
    if crop.ENABLED and crop.TYPE.startswith("relative"):
        side *= min(crop.SIZE)
    elif crop.ENABLED:
        side = min(side, float(crop.SIZE[0]))
    return keys, (side, side)


def _test_size(cfg: CfgNode) -> tuple[str, tuple[float, float]]:
    """Return the keys that determine the size of a test image, and the size for square images."""
    side = float(min(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST))
    keys, test = "INPUT.MIN_SIZE_TEST", cfg.TEST
    if test.AUG.ENABLED:
        keys, side = "TEST.AUG.MIN_SIZES", float(min(max(test.AUG.MIN_SIZES), test.AUG.MAX_SIZE))
    elif test.SEM_SEG_AUG.ENABLED:
        keys, side = f"{keys} with TEST.SEM_SEG_AUG.SCALES", side * max(test.SEM_SEG_AUG.SCALES)
    return keys, (side, side)


def _size(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB"
