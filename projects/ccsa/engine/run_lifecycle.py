"""What a run says of itself: its log, its configuration, and where its results lie."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from torch import nn

from ccsa.evaluation import main_metric
from ccsa.utils.files import write_text
from ccsa.utils.memory import peak_memory
from ccsa.utils.run_folders import CONFIG, RESULTS
from ccsa.visualization import draw_predictions


def start_run(cfg: CfgNode) -> None:
    """Open the log of this process, write the configuration, seed everything. Call it once in every
    process."""
    rank = comm.get_rank()
    for name in ("fvcore", "detectron2", "ccsa"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name=name)
    if torch.device(cfg.MODEL.DEVICE).type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // comm.get_world_size()))
    if comm.is_main_process():
        write_text(Path(cfg.OUTPUT_DIR) / CONFIG, cfg.dump())
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def finish_run(cfg: CfgNode, model: nn.Module, results: Mapping, seconds: float) -> None:
    """Write results and a picture of predictions, and print the figure the run is judged by and
    where everything lies."""
    folder = Path(cfg.OUTPUT_DIR)
    peak = peak_memory()
    record = {"results": results, "seconds": round(seconds, 1), "peak_memory_bytes": peak}
    write_text(folder / RESULTS, json.dumps(_known_or_null(record), indent=2, allow_nan=False))
    names = cfg.DATASETS.TEST
    headline = main_metric(results.get(names[0], {}) if len(names) > 1 else results)
    if headline:
        name, value = headline
        figure = "none (nothing was detected)" if math.isnan(value) else f"{value:.1f}"
        memory = f", {peak / 2**30:.1f} GiB" if peak else ""
        print(f"\n{name} {figure} in {seconds:.0f} s{memory}\n")
    if names:
        draw_predictions(cfg, model, names[0], folder / "predictions.png")
    places = {
        "results": folder / RESULTS,
        "predictions": folder / "predictions.png",
        "weights": folder / "model_final.pth",
        "curves": f"tensorboard --logdir {folder}",
        "log": folder / "log.txt",
    }
    for label, place in places.items():
        if not isinstance(place, Path) or place.exists():
            print(f"{label + ':':<13}{place}")


def _known_or_null(record: Any) -> Any:
    """Without NaN (the figure of what never occurs) and infinity, which JSON does not have."""
    if isinstance(record, Mapping):
        return {key: _known_or_null(value) for key, value in record.items()}
    return None if isinstance(record, float) and not math.isfinite(record) else record
