"""What a model costs on one image: parameters, FLOPs, time and memory."""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from ccsa.analysis.flops import count_flops
from ccsa.inference.predictor import Predictor


class Cost(NamedTuple):
    """Of one image, prepared as at test time; without sliding windows, scales and flips.

    Attributes:
        parameters: all that the model holds, with those used in training alone.
        flops: see :mod:`ccsa.analysis.flops`.
        seconds: median of the model's time, without reading and resizing the image.
        memory: bytes in use at the peak beyond what was in use before: activations, not weights.
    """

    parameters: int
    flops: int
    seconds: float
    memory: int


def measure(
    cfg: CfgNode, model: nn.Module, image: np.ndarray, *, warmup: int = 3, repeats: int = 20
) -> Cost:
    """Measure a model at inference, in the precision of ``SOLVER.AMP``.

    Args:
        cfg: says how the image is prepared, and the device.
        model: on its device; its mode is left as it was.
        image: (H, W, 3) RGB, uint8; for a video model every frame of its clip.
        warmup, repeats: calls before those that are timed, and those.
    """
    predictor = Predictor(cfg, model)
    inputs = [predictor.prepare(predictor.still(image))]
    device = torch.device(cfg.MODEL.DEVICE)
    flops = count_flops(model, inputs)
    with predictor.inference():
        seconds = median_seconds(lambda: model(inputs), device, warmup, repeats)
        memory = peak_bytes(lambda: model(inputs), device)
    return Cost(count_parameters(model), flops, seconds, memory)


def count_parameters(model: nn.Module) -> int:
    """Of the whole model, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


class Timing(NamedTuple):
    """Seconds of one call.

    Attributes:
        median: over the calls that count.
        spread: half the distance between the quartiles.
    """

    median: float
    spread: float


def median_seconds(
    call: Callable[[], Any], device: torch.device, warmup: int, repeats: int
) -> float:
    """Median time of ``call``, finished on the device, after ``warmup`` calls that do not count."""
    return side_by_side({"": call}, device, warmup, repeats)[""].median


def side_by_side(
    calls: Mapping[str, Callable[[], Any]],
    device: torch.device,
    warmup: int,
    repeats: int,
    limit: float = math.inf,
) -> dict[str, Timing]:
    """Times of several calls, finished on the device. They take turns, so that what else the
    machine does touches all of them; the first ``warmup`` turns do not count.

    Args:
        limit: seconds that turns that count may take together; there is at least one.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    for turn in range(warmup + repeats):
        if turn <= warmup:
            begun = time.perf_counter()
        elif time.perf_counter() - begun > limit:
            break
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - start)
    result = {}
    for name, values in times.items():
        low, high = torch.tensor(values[warmup:]).quantile(torch.tensor([0.25, 0.75])).tolist()
        result[name] = Timing(statistics.median(values[warmup:]), (high - low) / 2)
    return result


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Highest sum of the bytes that PyTorch's allocator hands out during ``call`` and has not got
    back yet."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # The CPU allocator keeps no such figure, and the resident size of the process rises once only:
    # the profiler's record of allocations is added up.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it complains where there is no GPU
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(
        activities=activities, profile_memory=True, acc_events=True
    ) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
