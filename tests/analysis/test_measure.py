"""Parameters, time and memory of models with known values."""

import argparse
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ccsa.analysis.measure import (
    count_parameters,
    measure,
    median_seconds,
    peak_bytes,
    side_by_side,
)
from ccsa.engine import Trainer, setup_cfg
from ccsa.modeling.layers import resize
from ccsa.utils.memory import peak_memory

CPU = torch.device("cpu")


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 4)
    assert count_parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 3 * 4 + 4


def test_the_median_of_the_calls_after_the_first_ones(monkeypatch):
    durations = iter([100.0, 50.0, 3.0, 1.0, 2.0])
    clock = [0.0]

    def call():
        clock[0] += next(durations)

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    assert median_seconds(call, CPU, warmup=2, repeats=3) == 2.0


def test_peak_memory_is_that_of_all_tensors_alive_at_once():
    def one_after_the_other():
        for _ in range(3):
            torch.empty(1000)

    def together():
        return [torch.empty(1000) for _ in range(3)]

    assert peak_bytes(one_after_the_other, CPU) == 4000
    assert peak_bytes(together, CPU) == 12000


@pytest.mark.parametrize("config", ["digits/fcn.yaml", "digits/ccnet_mask_rcnn.yaml"])
def test_a_model_of_a_configuration(root, config):
    args = argparse.Namespace(
        config_file=str(root / "configs" / config), opts=["MODEL.DEVICE", "cpu"]
    )
    cfg = setup_cfg(args)
    model = Trainer.build_model(cfg)
    model.backbone.eval()
    image = np.random.default_rng(0).integers(0, 255, (80, 60, 3), dtype=np.uint8)
    cost = measure(cfg, model, image, warmup=0, repeats=1)
    assert cost.parameters == sum(p.numel() for p in model.state_dict().values()) - sum(
        b.numel() for n, b in model.named_buffers() if n in model.state_dict()
    )
    assert cost.seconds > 0
    assert model.training and not model.backbone.training
    if config == "digits/fcn.yaml":
        # The image is resized to 213x160, and its logits are 13 float32 channels of that size.
        assert cost.memory >= 13 * 213 * 160 * 4
    larger = np.zeros((80, 240, 3), np.uint8)
    assert measure(cfg, model, larger, warmup=0, repeats=1).flops > cost.flops


def test_resizing_counts_into_memory():
    x = torch.zeros(1, 2, 4, 4)
    assert peak_bytes(lambda: resize(x, (8, 8), False), CPU) >= 2 * 8 * 8 * 4


def test_long_turns_are_not_repeated_as_often(monkeypatch):
    calls = []

    def turns(limit):
        clock = iter(range(1000))  # every call returns one second more
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(time, "perf_counter", lambda: float(next(clock)))
            return side_by_side({"a": lambda: calls.append(1)}, torch.device("cpu"), 1, 5, limit)

    turns(math.inf)
    assert len(calls) == 6
    timing = turns(2.0)
    assert len(calls) == 2 and timing["a"].median == 1.0


def test_an_accelerator_that_is_not_cuda_is_measured(monkeypatch):
    """The calls are those of every accelerator of torch; here a module records them."""
    calls = []
    xpu = SimpleNamespace(
        memory_allocated=lambda device: 100,
        max_memory_allocated=lambda device=None: 350,
        reset_peak_memory_stats=lambda device: calls.append("reset"),
        is_initialized=lambda: True,
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: xpu)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: calls.append("wait"))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    assert peak_bytes(lambda: calls.append("call"), torch.device("xpu")) == 250
    assert calls == ["wait", "reset", "call", "wait"]
    calls.clear()
    median_seconds(lambda: calls.append("call"), torch.device("xpu"), warmup=0, repeats=1)
    assert calls == ["call", "wait"]
    assert peak_memory() == 350
