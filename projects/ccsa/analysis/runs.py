"""Runs of tools/train_net.py, read back from their folders, and those that differ in their seed
alone put together."""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from ccsa.engine.setup import setup_cfg
from ccsa.errors import UserError
from ccsa.evaluation import main_metric
from ccsa.utils.run_folders import CONFIG, RESULTS, holds_run

# What two runs of one configuration may differ in.
_OWN = ("SEED", "OUTPUT_DIR")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        cfg: its configuration, on the device that is there now.
        results: task: metric: value, of the first test dataset.
        memory: bytes, the peak that the run recorded: training and evaluation.
    """

    folder: Path
    cfg: CfgNode
    results: Mapping[str, Mapping[str, float]]
    memory: int | None


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, under the name that tells it from the others."""

    name: str
    runs: list[Run]


class Spread(tuple):
    """Values of one metric over the seeds; nan, which a class without images gives, left out."""

    def __new__(cls, values):
        return super().__new__(cls, (v for v in values if not math.isnan(v)))

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self) if self else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation, with n - 1; None for fewer than two."""
        return statistics.stdev(self) if len(self) > 1 else None


def find_runs(places: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """Folders of finished runs, each once: those named, and for a folder that is no run all runs
    below it. The second list has unfinished runs below, which are left out.

    Raises:
        UserError: a place without a run, or a run named that is not finished.
    """
    found: dict[Path, Path] = {}
    unfinished = []
    for place in map(Path, places):
        if holds_run(place):
            if not (place / RESULTS).is_file():
                raise UserError(
                    f"run {place} is not finished, it has no {RESULTS}: "
                    "continue it by train_net.py --resume, or leave it away"
                )
            below = [place]
        else:
            below = sorted((p.parent for p in place.rglob(CONFIG)), key=_by_number)
            unfinished += [p for p in below if not (p / RESULTS).is_file()]
            below = [p for p in below if (p / RESULTS).is_file()]
        if not below:
            raise UserError(
                f"{place} holds no finished run of tools/train_net.py "
                f"({CONFIG} and {RESULTS}); name folders of runs, e.g. output/digits/fcn/1"
            )
        found.update((p.resolve(), p) for p in below)
    return list(found.values()), unfinished


def read_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        UserError: its configuration or results cannot be read, or it has evaluated nothing.
    """
    # The run may have been trained on a device that is not here.
    args = argparse.Namespace(config_file=str(folder / CONFIG), opts=["MODEL.DEVICE", "auto"])
    cfg = setup_cfg(args)
    try:
        record = json.loads((folder / RESULTS).read_text())
        results = record["results"]
        if len(cfg.DATASETS.TEST) > 1:
            results = results[cfg.DATASETS.TEST[0]]
        results = {
            task: {key: math.nan if value is None else value for key, value in values.items()}
            for task, values in results.items()
        }
        memory = record.get("peak_memory_bytes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / RESULTS} is no record of a run ({error!r}); train or evaluate it again"
        ) from error
    if not results:
        raise UserError(f"run {folder} has evaluated nothing: its {RESULTS} has no metric")
    return Run(folder, cfg, results, memory)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs whose configurations differ in seed and folder alone, in the order given.

    Raises:
        UserError: runs that were evaluated on different datasets.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        first = runs[0]
        if run.cfg.DATASETS.TEST != first.cfg.DATASETS.TEST:
            raise UserError(
                f"run {first.folder} was evaluated on {', '.join(first.cfg.DATASETS.TEST)}, "
                f"but {run.folder} on {', '.join(run.cfg.DATASETS.TEST)}: "
                "compare runs on one dataset"
            )
        groups.setdefault(_without_seed(run.cfg), []).append(run)
    names = _names([members[0].folder for members in groups.values()])
    return [Group(name, members) for name, members in zip(names, groups.values(), strict=True)]


def choose_metric(groups: Sequence[Group], name: str | None = None) -> tuple[str, list[Spread]]:
    """A metric and its values in each group.

    Args:
        groups: of :func:`group_runs`.
        name: ``task/metric``, or ``metric`` where one task alone has it; by default the figure that
            the runs are judged by, of the tasks that all have.

    Raises:
        UserError: none of that name, or none in common.
    """
    runs = [run for group in groups for run in group.runs]
    common = [t for t in runs[0].results if all(t in run.results for run in runs)]
    if name is None:
        chosen = [main_metric({t: run.results[t] for t in common}) for run in runs]
        if not all(chosen):
            raise UserError(
                f"the runs have no main metric in common; choose one by --metric: {_known(runs)}"
            )
        label = chosen[0][0]
        values = dict(zip((id(run) for run in runs), (c[1] for c in chosen), strict=True))
    else:
        task, _, key = name.rpartition("/")
        having = [t for t in common if (not task or t == task) and key in runs[0].results[t]]
        if len(having) != 1 or not all(key in run.results[having[0]] for run in runs):
            what = "in several tasks" if len(having) > 1 else "not a metric of all the runs"
            raise UserError(f"--metric {name} is {what}; there are {_known(runs)}")
        label = name
        values = {id(run): run.results[having[0]][key] for run in runs}
    return label, [Spread(values[id(run)] for run in group.runs) for group in groups]


def _known(runs: Sequence[Run]) -> str:
    """The metrics that all runs have; of those for each class, such as IoU-sand, one."""
    each = [{f"{task}/{key}" for task, keys in r.results.items() for key in keys} for r in runs]
    first = [f"{task}/{key}" for task, keys in runs[0].results.items() for key in keys]
    names = [name for name in first if all(name in others for others in each)]
    plain = [name for name in names if "-" not in name]
    classes = [name for name in names if "-" in name][:1] if plain else []
    return ", ".join([*(plain or names), *(f"and for each class e.g. {c}" for c in classes)])


def _without_seed(cfg: CfgNode) -> str:
    cfg = cfg.clone()
    cfg.defrost()
    for key in _OWN:
        cfg.pop(key)
    return cfg.dump()


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names: the folder, without the number of a run, and as many of the folders above as it
    takes to tell one from the other; in the end the number too."""
    full = [folder.resolve().parts for folder in folders]
    stems = [p[:-1] if p[-1].isdigit() and len(p) > 2 else p for p in full]
    for parts in (stems, full):
        for depth in range(1, max(map(len, parts)) + 1):
            names = ["/".join(p[-depth:]) for p in parts]
            if len(set(names)) == len(names):
                return names
    return ["/".join(p) for p in full]


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Sorts 10 after 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.parts]
