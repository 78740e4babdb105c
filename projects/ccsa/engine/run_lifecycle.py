"""Start and end of a run: its log and configuration, and the results that it leaves."""

import json
import logging
import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from torch import nn

from ccsa.data.own import register_own_data
from ccsa.engine.resume_state import circumstances
from ccsa.errors import UserError
from ccsa.evaluation import metric_of_run
from ccsa.utils.files import write_text
from ccsa.utils.memory import peak_memory
from ccsa.utils.run_folders import CONFIG, LOG, RESULTS
from ccsa.visualization import draw_predictions

logger = logging.getLogger(__name__)


def start_run(cfg: CfgNode, header: str = "") -> None:
    """Open the log of this process, set the seeds, and register the user's own data.

    Every process of the job calls this once. On the CPU, the processes of a machine share its
    threads.

    Args:
        cfg: the configuration of the run.
        header: text that has been printed already; the main process writes it to the log.
    """
    rank = comm.get_rank()
    register_own_data(cfg)
    if header and comm.is_main_process():
        with (Path(cfg.OUTPUT_DIR) / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{header}\n\n")
    for name in ("fvcore", "detectron2", "ccsa"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name=name)
    if torch.device(cfg.MODEL.DEVICE).type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // comm.get_local_size()))
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def record_config(cfg: CfgNode) -> None:
    """Write the configuration into the run folder, in the main process.

    This is called once the weights are loaded, so that a run that cannot be resumed with this
    configuration keeps its own.

    Raises:
        UserError: the configuration cannot be written.
    """
    if comm.is_main_process():
        write_text(Path(cfg.OUTPUT_DIR) / CONFIG, cfg.dump())


def finish_run(cfg: CfgNode, model: nn.Module, results: Mapping, seconds: float) -> None:
    """Write the results and a picture of predictions, and print the main metric and all files.

    Args:
        cfg: the configuration of the run.
        model: the trained or evaluated model.
        results: ``{task: {metric: value}}``; with several test datasets
            ``{dataset: {task: {metric: value}}}``.
        seconds: the duration of the run.

    Raises:
        UserError: the results cannot be written. A picture that cannot be drawn is only reported.
    """
    folder = Path(cfg.OUTPUT_DIR)
    peak = peak_memory()
    record = {
        "results": results,
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak,
        "provenance": {
            "command": shlex.join(["python", *sys.argv]),
            "versions": circumstances(cfg)["versions"],
        },
    }
    write_text(folder / RESULTS, json.dumps(_finite_or_none(record), indent=2, allow_nan=False))
    names = cfg.DATASETS.TEST
    metric = metric_of_run(cfg, results)
    if metric:
        name, value = metric
        memory = "" if peak is None else f", {peak / 2**30:.1f} GiB"
        if math.isnan(value):
            reason = f"not available, because nothing was detected ({seconds:.0f} s{memory})"
            print(f"\n{name}: {reason}\n")
        else:
            print(f"\n{name} {value:.1f} in {seconds:.0f} s{memory}\n")
    if names:
        _draw(cfg, model, names[0], folder / "predictions.png")
    outputs = {
        "results": folder / RESULTS,
        "predictions": folder / "predictions.png",
        "weights": folder / "model_final.pth",
        "curves": f"tensorboard --logdir {folder}",
        "log": folder / LOG,
    }
    for label, output in outputs.items():
        if not isinstance(output, Path) or output.exists():
            print(f"{label + ':':<13}{output}")


def _draw(cfg: CfgNode, model: nn.Module, dataset: str, file: Path) -> None:
    """Draw predictions; a failure is reported in one sentence, because the run itself is done."""
    try:
        draw_predictions(cfg, model, dataset, file)
        return
    except UserError as error:
        reason = str(error)
    except Exception as error:  # whatever an image, a record or a model's output may cause
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    logger.warning("The picture of predictions was not drawn (%s).", reason)


def _finite_or_none(record: Any) -> Any:
    """Replace NaN (the score of a class that never occurs) and infinity by None in nested mappings,
    because JSON has neither."""
    if isinstance(record, Mapping):
        return {key: _finite_or_none(value) for key, value in record.items()}
    return None if isinstance(record, float) and not math.isfinite(record) else record
