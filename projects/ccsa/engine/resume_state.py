"""What a resumed run needs to go on as if it had not been interrupted.

The random states are functions of the seed, the process and the iteration, and are set at the
beginning of each iteration. Nothing of them is stored, so that a checkpoint of one process serves
all, and neither an evaluation nor the workers of the loader can change what follows.
"""

import contextlib
import functools
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter, TensorboardXWriter

import ccsa
from ccsa.data.sample_stream import TrainLoader
from ccsa.utils.random_states import seed_random_states

METRICS = "metrics.json"
EVENTS = "events.out.tfevents.*"  # of TensorBoard
TIMES = ("time", "eta_seconds")  # not measured in the first iterations after a start
WINDOW = 20  # iterations over which Detectron2's writers take medians


class ResumeState(HookBase):
    """Sets the random states of every iteration, and continues the files of metrics.

    The state in a checkpoint contains the seed, the duration so far, the last values of every
    metric (over which medians are taken), and the lengths of ``metrics.json`` and of TensorBoard's
    files. A resumed run shortens the files to these lengths, so that no row is repeated or missing.

    Args:
        cfg: the configuration of the run.
        loader: the loader of training, or another iterable.

    Attributes:
        seed: of the run, the same in all processes.
        earlier_seconds: the duration of the parts of the run before this one.
        hooks_left: how many of the last hooks the iteration of the checkpoint has not run, because
            a signal has interrupted its evaluation.
        schedule_batch: the images per batch for which the schedule of the configuration is written.
    """

    def __init__(self, cfg: CfgNode, loader: Any):
        self.cfg, self.loader = cfg, loader
        self.seed = loader.seed if isinstance(loader, TrainLoader) else max(cfg.SEED, 0)
        self.writers: Sequence[EventWriter] = ()
        self.earlier_seconds = 0.0
        self.hooks_left = 0
        self.schedule_batch = cfg.SOLVER.IMS_PER_BATCH
        self._started = time.perf_counter()
        self._loaded: dict[str, Any] = {}

    def before_train(self) -> None:
        if self._loaded and comm.is_main_process():
            shorten_logs(Path(self.cfg.OUTPUT_DIR), self._loaded["log_sizes"])
            same_batch = self._loaded["batch"] == self.cfg.SOLVER.IMS_PER_BATCH
            if same_batch:  # otherwise iterations have other numbers
                restore_metrics(self.trainer.storage, self._loaded["metrics"])
            for writer, last in zip(
                _file_writers(self.writers), self._loaded["written"], strict=True
            ):
                writer._last_write = last if same_batch else self.trainer.start_iter - 1
        self._loaded = {}

    def before_step(self) -> None:
        seed_random_states(self.seed, comm.get_rank(), self.trainer.iter)

    def state_dict(self) -> dict[str, Any]:
        flush(self.writers)
        storage = getattr(self.trainer, "storage", None)
        return {
            "seed": self.seed,
            "seconds": self.earlier_seconds + time.perf_counter() - self._started,
            "batch": self.cfg.SOLVER.IMS_PER_BATCH,
            "schedule_batch": self.schedule_batch,
            "log_sizes": log_sizes(Path(self.cfg.OUTPUT_DIR)),
            "metrics": {} if storage is None else last_metrics(storage, self.trainer.iter),
            "hooks_left": self.trainer.hooks_left,
            "written": [writer._last_write for writer in _file_writers(self.writers)],
            **circumstances(self.cfg),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict
        self.earlier_seconds = float(state_dict["seconds"])
        self.schedule_batch = int(state_dict["schedule_batch"])
        if state_dict["batch"] == self.cfg.SOLVER.IMS_PER_BATCH:
            self.hooks_left = int(state_dict.get("hooks_left", 0))
        if self.cfg.SEED < 0:  # a random seed that the run has chosen
            self.seed = int(state_dict["seed"])
            if isinstance(self.loader, TrainLoader):
                self.loader.set_seed(self.seed)


def circumstances(cfg: CfgNode) -> dict[str, Any]:
    """Return under which conditions a run trains: versions, processes, and the configuration."""
    return {
        "versions": {
            "commit": commit(),
            "ccsa": ccsa.__version__,
            "torch": str(torch.__version__),  # a class of its own
            "detectron2": str(detectron2.__version__),
            "Python": platform.python_version(),
        },
        "world_size": comm.get_world_size(),
        "threads": torch.get_num_threads(),
        "config": cfg.dump(),
    }


@functools.cache  # every checkpoint contains it
def commit() -> str:
    """Return the commit of the checkout that ccsa is imported from; empty if there is none."""
    folder = Path(ccsa.__file__).resolve().parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        words = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        found = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
        return found.stdout.strip()
    return ""


def last_metrics(storage: EventStorage, iteration: int) -> dict[str, dict[str, Any]]:
    """Return the last values of every metric, with their iterations, as far as medians need them.

    Args:
        storage: of the training.
        iteration: the last one that is complete; an interrupted one is left out.

    Example:
        >>> with EventStorage(5) as storage:
        ...     storage.put_scalar("loss", 0.5)
        >>> last_metrics(storage, 5)["loss"]["values"]
        [[0.5, 5.0]]
    """
    hints = storage.smoothing_hints()
    return {
        name: {
            "values": [[float(v), float(i)] for v, i in values],
            "smoothed": bool(hints[name]),
        }
        for name, history in storage.histories().items()
        if name not in TIMES
        and (values := [(v, i) for v, i in history.values()[-WINDOW:] if i <= iteration])
    }


def restore_metrics(storage: EventStorage, metrics: dict[str, dict[str, Any]]) -> None:
    """Put the values of :func:`last_metrics` back, under their iterations."""
    for name, content in metrics.items():
        for value, iteration in content["values"]:
            hint = content["smoothed"]
            storage.put_scalar(name, value, smoothing_hint=hint, cur_iter=int(iteration))


def flush(writers: Sequence[EventWriter]) -> None:
    """Write what the writers hold back to their files."""
    for writer in writers:
        if isinstance(writer, JSONWriter) and not writer._file_handle.closed:
            writer._file_handle.flush()
        if isinstance(writer, TensorboardXWriter) and "_writer" in vars(writer):
            writer._writer.flush()


def log_sizes(folder: Path) -> dict[str, int]:
    """Return the lengths in bytes of the files of metrics in a run folder."""
    return {path.name: path.stat().st_size for path in _logs(folder)}


def shorten_logs(folder: Path, sizes: dict[str, int]) -> None:
    """Remove from the files of metrics what was written after :func:`log_sizes` gave ``sizes``."""
    for path in _logs(folder):
        if path.name not in sizes and path.name != METRICS:
            path.unlink()
        elif path.stat().st_size > sizes.get(path.name, 0):
            os.truncate(path, sizes.get(path.name, 0))


def _logs(folder: Path) -> list[Path]:
    names = [folder / METRICS, *sorted(folder.glob(EVENTS))]
    return [path for path in names if path.is_file() and not path.is_symlink()]


def _file_writers(writers: Sequence[EventWriter]) -> list[Any]:
    return [w for w in writers if isinstance(w, JSONWriter | TensorboardXWriter)]
