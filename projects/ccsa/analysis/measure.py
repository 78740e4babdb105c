"""The cost of a model for one image: parameters, FLOPs, time and memory."""

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
from ccsa.inference.predictor import ModelPredictor
from ccsa.utils.memory import accelerator_statistics


class Cost(NamedTuple):
    """The cost of one image, without sliding windows, scales and flips.

    Attributes:
        parameters: the number of parameters, including those that are used in training only.
        flops: the number of FLOPs, see :mod:`ccsa.analysis.flops`.
        seconds: the median time of the model, without reading and resizing the image.
        memory: the peak of allocated bytes beyond those allocated before; activations, not weights.
    """

    parameters: int
    flops: int
    seconds: float
    memory: int


def measure(
    cfg: CfgNode, model: nn.Module, image: np.ndarray, *, warmup: int = 3, repeats: int = 20
) -> Cost:
    """Return the cost of a model at inference, in the precision of ``SOLVER.AMP``.

    Args:
        cfg: a configuration; it defines how the image is prepared, and the device.
        model: the model of that configuration, on its device. Its mode is left as it was.
        image: RGB of shape (H, W, 3), uint8; for a model that takes clips, it is every frame.
        warmup: the number of calls before the time is measured.
        repeats: the number of calls whose time is measured.

    Example:
        >>> cost = measure(cfg, model, image)  # doctest: +SKIP
        >>> print(f"{cost.flops / 1e9:.1f} G, {1e3 * cost.seconds:.1f} ms")  # doctest: +SKIP
    """
    predictor = ModelPredictor(cfg, model)
    inputs = [predictor.prepare(predictor.still(image))]
    device = torch.device(cfg.MODEL.DEVICE)
    flops = count_flops(model, inputs)
    with predictor.inference():
        seconds = median_seconds(lambda: model(inputs), device, warmup, repeats)
        memory = peak_bytes(lambda: model(inputs), device)
    return Cost(count_parameters(model), flops, seconds, memory)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a model, counting shared parameters once.

    Example:
        >>> count_parameters(nn.Linear(3, 4))
        16
    """
    return sum(parameter.numel() for parameter in model.parameters())


class Timing(NamedTuple):
    """The time of one call in seconds.

    Attributes:
        median: the median over the measured calls.
        spread: half of the interquartile range.
    """

    median: float
    spread: float


def median_seconds(
    call: Callable[[], Any], device: torch.device, warmup: int, repeats: int
) -> float:
    """Return the median time of a call in seconds, including its work on the device.

    Args:
        call: the function to measure.
        device: the device on which it runs.
        warmup: the number of calls before the time is measured.
        repeats: the number of calls whose time is measured.
    """
    return side_by_side({"": call}, device, warmup, repeats)[""].median


def side_by_side(
    calls: Mapping[str, Callable[[], Any]],
    device: torch.device,
    warmup: int,
    repeats: int,
    limit: float = math.inf,
) -> dict[str, Timing]:
    """Return the times of several calls, including their work on the device.

    The calls take turns, so that other load on the machine affects all of them alike.

    Args:
        calls: {name: function to measure}.
        device: the device on which they run.
        warmup: the number of turns before the times are measured.
        repeats: the number of turns whose times are measured, at most.
        limit: the time in seconds after which no other turn is measured; there is at least one.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    for turn in range(warmup + repeats):
        if turn <= warmup:
            started = time.perf_counter()
        elif time.perf_counter() - started > limit:
            break
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            synchronize(device)
            times[name].append(time.perf_counter() - start)
    result = {}
    for name, values in times.items():
        low, high = torch.tensor(values[warmup:]).quantile(torch.tensor([0.25, 0.75])).tolist()
        result[name] = Timing(statistics.median(values[warmup:]), (high - low) / 2)
    return result


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has finished its work; the CPU has nothing to wait for."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Return the peak of the bytes that a call allocates through PyTorch and has not freed.

    Bytes that were allocated before the call do not count. On mps, whose peak PyTorch does not
    record, only the allocations on the CPU count.
    """
    statistics = accelerator_statistics(device)
    if statistics is not None:
        synchronize(device)
        before = statistics.memory_allocated(device)
        statistics.reset_peak_memory_stats(device)
        call()
        synchronize(device)
        return statistics.max_memory_allocated(device) - before
    # The CPU allocator does not record its peak, and the peak resident size of the process includes
    # earlier calls. The allocations in the profiler's record are summed instead.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences warnings about a missing GPU
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(
        activities=activities, profile_memory=True, acc_events=True
    ) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak
