"""The metrics of an exported program on a dataset, and its speed next to another one."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ccsa.data.image_reader import intensity_range
from ccsa.data.loaders import load_records
from ccsa.errors import UserError
from ccsa.evaluation import build_evaluator, metric_of_run
from ccsa.export.programs import Program
from ccsa.export.quantization import program_input

WARMUP = 3  # calls of each program before the time is measured


def evaluate_program(
    run: Program, outputs: Sequence[str], cfg: CfgNode, folder: Path
) -> tuple[str, float]:
    """Return the name and the value of the main metric of a program on the first test dataset.

    Args:
        run: a program that takes images of any size.
        outputs: the names of its outputs.
        cfg: the configuration of the model.
        folder: where the evaluator writes its files.

    Raises:
        UserError: the configuration has no test dataset, or the dataset has no metric.
    """
    if not cfg.DATASETS.TEST:
        raise UserError("the configuration has no test dataset to evaluate on; set DATASETS.TEST")
    name = cfg.DATASETS.TEST[0]
    evaluator = build_evaluator(name, folder, max_detections=cfg.TEST.DETECTIONS_PER_IMAGE)
    evaluator.reset()
    intensities = intensity_range(cfg.INPUT.get("INTENSITY_RANGE", "auto"))
    classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for record in load_records(cfg, name):
        image = program_input(record, intensities)
        found = dict(zip(outputs, run(torch.from_numpy(image)), strict=True))
        evaluator.process([record], [_as_model(found, image.shape[-3:-1], classes)])
    metric = metric_of_run(cfg, evaluator.evaluate())
    if metric is None:
        raise UserError(f"the program has no metric on {name}; choose another DATASETS.TEST")
    return metric


def _as_model(found: Mapping[str, Tensor], size: tuple[int, int], classes: int) -> dict[str, Any]:
    """Return outputs of a program under the names that Detectron2's models use."""
    if "semantic" in found:
        labels = found["semantic"].long()
        return {"sem_seg": torch.nn.functional.one_hot(labels, classes).permute(2, 0, 1)}
    instances = Instances(size)
    instances.pred_boxes = Boxes(found["boxes"])
    instances.scores, instances.pred_classes = found["scores"], found["classes"]
    if "masks" in found:
        instances.pred_masks = found["masks"].bool()
    return {"instances": instances}


def seconds_in_turns(
    programs: Sequence[Callable[[Tensor], Any]], images: Sequence[np.ndarray]
) -> list[float]:
    """Return the median time of each program for an image; they run each image in turns."""
    tensors = [torch.from_numpy(image) for image in images]
    for run in programs:
        for image in tensors[:WARMUP]:
            run(image)
    times: list[list[float]] = [[] for _ in programs]
    for turn, image in enumerate(tensors):
        for index in range(len(programs)):
            index = (index + turn) % len(programs)
            started = time.perf_counter()
            programs[index](image)
            times[index].append(time.perf_counter() - started)
    return [statistics.median(each) for each in times]
