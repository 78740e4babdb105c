"""The gain of MODEL.COMPILE: training and inference of compiled models and uncompiled ones."""

import argparse
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.attention import Options
from benchmarks.cases import Call
from benchmarks.model import noise_image, training_step
from benchmarks.report import Section
from ccsa.analysis.measure import side_by_side
from ccsa.engine.compilation import compile_parts
from ccsa.engine.setup import setup_cfg
from ccsa.engine.trainer import Trainer

CONFIGS = ("digits/ccnet_mask_rcnn.yaml", "digits/ccnet.yaml")
TURNS = 10


def compilation(options: Options, configs: Path, size: tuple[int, int] = (160, 160)) -> Section:
    """Measure a training step and the inference of models that are compiled or not.

    Args:
        options: how to measure.
        configs: folder of the configurations.
        size: height and width of the images, which are noise.
    """
    rows, records = [], []
    for file in CONFIGS:
        batch = [noise_image(size), noise_image(size)]
        models = {
            "eager": _model(configs / file, options, compiled=False),
            "compiled": _model(configs / file, options, compiled=True),
        }
        for item in batch:  # the detector does not read it
            item["sem_seg"] = torch.randint(0, 10, size)
        for work in ("training", "inference"):
            options.log(f"compilation: {file}, {work}")
            calls = {
                name: training_step(model.train(), batch)
                if work == "training"
                else _inference(model.eval(), batch)
                for name, model in models.items()
            }
            started = time.perf_counter()
            calls["compiled"]()
            first = time.perf_counter() - started
            turns = max(options.repeats, TURNS)
            times = side_by_side(calls, options.device, warmup=2, repeats=turns)
            plain, fast = times["eager"].median, times["compiled"].median
            rows.append(
                [
                    *(f"configs/{file}", work, f"{1 / plain:.2f}", f"{1 / fast:.2f}"),
                    *(f"{plain / fast:.2f}", f"{first:.0f} s"),
                ]
            )
            records.append(
                {
                    **{"config": file, "work": work, "turns": turns, "first": first},
                    **{name: timing._asdict() for name, timing in times.items()},
                }
            )
    notes = [
        f"two images of {size[0]} x {size[1]}, float32, random weights; medians of "
        f"{max(options.repeats, TURNS)} turns; training is a step of forward and backward pass and "
        "update",
        "first call: the time of the first compiled call, which compiles; a second size of images "
        "compiles once more",
    ]
    headers = ["", "", "eager, per second", "compiled, per second", "gain", "first call"]
    title = "Compilation of backbone and heads (MODEL.COMPILE)"
    return Section("compilation", title, headers, rows, notes, records)


def _inference(model: nn.Module, batch: list[dict]) -> Call:
    def call() -> None:
        torch.manual_seed(0)
        with torch.no_grad():
            model(batch)

    return call


def _model(config: Path, options: Options, compiled: bool) -> nn.Module:
    words = ["MODEL.DEVICE", str(options.device), "OUTPUT_DIR", "unused"]
    words += ["MODEL.COMPILE", str(compiled)]
    cfg = setup_cfg(argparse.Namespace(config_file=str(config), opts=words))
    torch.manual_seed(0)
    return compile_parts(cfg, Trainer.build_model(cfg))
