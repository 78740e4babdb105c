"""What differs between a run and its continuation, and a schedule that follows a new batch size."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from ccsa.checkpoint.checkpoint_files import shared_newest_valid
from ccsa.checkpoint.weight_files import read_entry
from ccsa.engine.resume_state import ResumeState, circumstances
from ccsa.errors import shown
from ccsa.utils.run_folders import flat_values, has_checkpoint

logger = logging.getLogger(__name__)

# Keys that say where something is, or that a resumed run does not use.
_PLACES = ("OUTPUT_DIR", "MODEL.WEIGHTS", "VERSION")


def read_progress(folder: str) -> dict[str, Any] | None:
    """Return what the last checkpoint of a run says of its progress, or None without a checkpoint.

    It is the state of :class:`ccsa.engine.resume_state.ResumeState`, empty in a checkpoint of an
    earlier version.

    Raises:
        UserError: no checkpoint is valid.
    """
    if not has_checkpoint(Path(folder)):
        return None
    trainer = read_entry(shared_newest_valid(Path(folder)), "trainer")
    hooks = trainer.get("hooks", {}) if isinstance(trainer, Mapping) else {}
    return dict(hooks.get(ResumeState.__qualname__, {}))


def changes(progress: Mapping[str, Any], cfg: CfgNode) -> list[str]:
    """Return what differs from the part of the run that wrote the checkpoint, an entry each.

    Args:
        progress: of :func:`read_progress`.
        cfg: the configuration of this part.
    """
    now = circumstances(cfg)
    found = [
        f"{name} {progress['versions'].get(name) or 'unknown'} -> {version or 'unknown'}"
        for name, version in now["versions"].items()
        if progress["versions"].get(name) != version
    ]
    for key, name in (("world_size", "processes"), ("threads", "threads of each process")):
        if progress[key] != now[key]:
            found.append(f"{name} {progress[key]} -> {now[key]}")
    before, after = (
        flat_values(yaml.safe_load(text)) for text in (progress["config"], now["config"])
    )
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, "absent"), after.get(key, "absent")
        if old != new and not key.startswith(_PLACES):
            found.append(f"{key} {shown(old)} -> {shown(new)}")
    return found


def with_schedule_for_batch(cfg: CfgNode, progress: Mapping[str, Any]) -> CfgNode:
    """Return the configuration with a schedule that trains on as many images as before.

    The schedule in the configuration counts iterations of the batch with which the run began. With
    another batch, these numbers are multiplied by old / new. ``SOLVER.REFERENCE_WORLD_SIZE`` does
    so itself.

    Args:
        cfg: the configuration of this part of the run.
        progress: of :func:`read_progress`.
    """
    old, new = progress["schedule_batch"], cfg.SOLVER.IMS_PER_BATCH
    if old == new or cfg.SOLVER.REFERENCE_WORLD_SIZE > 0:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()

    def scaled(iterations: int) -> int:
        return max(1, round(iterations * old / new)) if iterations > 0 else iterations

    solver = cfg.SOLVER
    solver.MAX_ITER = math.ceil(solver.MAX_ITER * old / new)
    solver.WARMUP_ITERS = scaled(solver.WARMUP_ITERS)
    solver.CHECKPOINT_PERIOD = scaled(solver.CHECKPOINT_PERIOD)
    solver.STEPS = tuple(scaled(step) for step in solver.STEPS)
    cfg.TEST.EVAL_PERIOD = scaled(cfg.TEST.EVAL_PERIOD)
    cfg.freeze()
    logger.warning(
        f"The batch has {new} images instead of {old}, with which the run began: to train on as "
        f"many images, the schedule is rescaled to MAX_ITER {solver.MAX_ITER}, STEPS "
        f"{solver.STEPS}, WARMUP_ITERS {solver.WARMUP_ITERS}, CHECKPOINT_PERIOD "
        f"{solver.CHECKPOINT_PERIOD}, EVAL_PERIOD {cfg.TEST.EVAL_PERIOD}; SOLVER.BASE_LR is "
        f"{solver.BASE_LR:g}, as configured"
    )
    return cfg


def first_iteration(iteration: int, progress: Mapping[str, Any], batch: int) -> int:
    """Return the iteration with which a run continues, after as many images as before.

    Args:
        iteration: the last one before the checkpoint.
        progress: of :func:`read_progress`.
        batch: the number of images of a batch now.

    Example:
        >>> first_iteration(9, {"batch": 4}, 8), first_iteration(9, {"batch": 4}, 4)
        (5, 10)
    """
    return math.ceil((iteration + 1) * progress["batch"] / batch)
