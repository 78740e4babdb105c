"""Read the runs of tools/train_net.py from their folders, and group runs that differ only in their
seed."""

import argparse
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from ccsa.analysis.results import read_results
from ccsa.analysis.run_names import LOCATION_KEYS, RUN_KEYS, group_names
from ccsa.engine.setup import setup_cfg
from ccsa.errors import UserError
from ccsa.evaluation.build import main_metric_key
from ccsa.utils.files import real_path
from ccsa.utils.run_folders import CONFIG, RESULTS, holds_run

_MOST_NAMES = 20  # of metrics in a message


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: the folder of the run.
        cfg: its configuration, with a device that is available on this machine.
        results: {task: {metric: value}} of the first test dataset.
        memory: the peak in bytes that the run recorded in training and evaluation, if it did.
    """

    folder: Path
    cfg: CfgNode
    results: Mapping[str, Mapping[str, float]]
    memory: int | None


@dataclass(frozen=True)
class Group:
    """Runs of one configuration.

    Attributes:
        name: a short name that distinguishes the group from the others.
        runs: the runs.
    """

    name: str
    runs: list[Run]


class Spread(tuple[float, ...]):
    """The values of one metric over several seeds.

    Values that are nan (a class without images has no score) are left out.

    Example:
        >>> spread = Spread([1.0, 4.0, float("nan")])
        >>> spread, spread.mean
        ((1.0, 4.0), 2.5)
    """

    def __new__(cls, values: Iterable[float]) -> "Spread":
        return super().__new__(cls, (v for v in values if not math.isnan(v)))

    @property
    def mean(self) -> float | None:
        """Return the mean, or None if there are no values."""
        return statistics.fmean(self) if self else None

    @property
    def deviation(self) -> float | None:
        """Return the sample standard deviation (n - 1), or None for fewer than two values."""
        return statistics.stdev(self) if len(self) > 1 else None


class Metric(NamedTuple):
    """A metric of groups of runs.

    Attributes:
        label: its name in tables.
        task, key: its names in ``results.json``.
        values: its values over the seeds of each group.
    """

    label: str
    task: str
    key: str
    values: list[Spread]


def find_runs(folders: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """Return the folders of finished runs, each once, and those of unfinished runs.

    Args:
        folders: runs, or folders that contain runs at any depth.

    Returns:
        The finished runs, and the unfinished runs below ``folders``, which a comparison leaves out.

    Raises:
        UserError: a folder contains no finished run, or a run in ``folders`` is not finished.
    """
    found: dict[Path, Path] = {}
    unfinished = []
    for folder in map(Path, folders):
        if holds_run(folder):
            if not (folder / RESULTS).is_file():
                raise UserError(
                    f"run {folder} is not finished because it has no {RESULTS}; "
                    "continue it with train_net.py --resume, or remove it from the list"
                )
            below = [folder]
        else:
            below = sorted((p.parent for p in folder.rglob(CONFIG)), key=_sort_key)
            unfinished += [p for p in below if not (p / RESULTS).is_file()]
            below = [p for p in below if (p / RESULTS).is_file()]
        if not below:
            raise UserError(
                f"{folder} contains no finished run of tools/train_net.py "
                f"({CONFIG} and {RESULTS}); name folders of runs, e.g. output/digits/fcn/1"
            )
        found.update((real_path(p), p) for p in below)
    return list(found.values()), unfinished


def read_run(folder: Path, **data: Any) -> Run:
    """Read a finished run.

    Args:
        folder: the folder of the run.
        data: options of :func:`ccsa.engine.own_data.add_data_arguments`, for a run whose data has
            moved or that needs the user's code.

    Raises:
        UserError: its configuration or results cannot be read, or it has no results.
    """
    # The run may have been trained on a device that this machine does not have.
    options = ["MODEL.DEVICE", "auto"]
    args = argparse.Namespace(config_file=str(folder / CONFIG), opts=options, **data)
    cfg = setup_cfg(args)
    results = read_results(folder / RESULTS, cfg.DATASETS.TEST)
    return Run(folder, cfg, results.tasks, results.memory)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs whose configurations differ only in seed and folder, in their order.

    Raises:
        UserError: the runs were evaluated on different datasets.
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
    first_runs = [members[0] for members in groups.values()]
    names = group_names([run.folder for run in first_runs], [run.cfg for run in first_runs])
    return [Group(name, members) for name, members in zip(names, groups.values(), strict=True)]


def choose_metric(groups: Sequence[Group], name: str | None = None) -> Metric:
    """Return a metric and its values in each group.

    Args:
        groups: the groups, see :func:`group_runs`.
        name: ``task/metric``, or ``metric`` if only one task has it. The default is the main metric
            of the tasks that all runs have, see :func:`ccsa.evaluation.main_metric`.

    Raises:
        UserError: the runs have no such metric, or no main metric in common.
    """
    runs = [run for group in groups for run in group.runs]
    common = [t for t in runs[0].results if all(t in run.results for run in runs)]
    if name is None:
        # A task can have no metrics in one of the runs, for example if nothing was detected.
        mains = [main_metric_key({t: run.results[t] for t in common}) for run in runs]
        if any(main is None or main != mains[0] for main in mains):
            raise UserError(
                "the runs have no main metric in common; choose one with --metric: "
                f"{_available(runs)}"
            )
        assert mains[0] is not None
        label, task, key = mains[0]
    else:
        named, _, key = name.rpartition("/")
        having = [t for t in common if (not named or t == named) and key in runs[0].results[t]]
        if len(having) != 1 or not all(key in run.results[having[0]] for run in runs):
            problem = "in several tasks" if len(having) > 1 else "not a metric of all runs"
            raise UserError(f"--metric {name} is {problem}; available: {_available(runs)}")
        label, task = name, having[0]
    values = [Spread(run.results[task][key] for run in group.runs) for group in groups]
    return Metric(label, task, key, values)


def _available(runs: Sequence[Run]) -> str:
    """Return the metrics that all runs have, with one example of those for each class."""
    each = [{f"{task}/{key}" for task, keys in r.results.items() for key in keys} for r in runs]
    first = [f"{task}/{key}" for task, keys in runs[0].results.items() for key in keys]
    names = [name for name in first if all(name in others for others in each)]
    plain = [name for name in names if "-" not in name]
    classes = [name for name in names if "-" in name][:1] if plain else []
    shown = (plain or names)[:_MOST_NAMES]
    more = [f"and {len(plain or names) - len(shown)} more"] * (len(plain or names) > len(shown))
    return ", ".join([*shown, *more, *(f"and for each class e.g. {c}" for c in classes)])


def _without_seed(cfg: CfgNode) -> str:
    cfg = cfg.clone()
    cfg.defrost()
    for key in RUN_KEYS:
        cfg.pop(key)
    for key in LOCATION_KEYS:
        cfg.DATASETS.OWN.pop(key)
    return cfg.dump()


def _sort_key(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts the run 10 after the run 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.parts]
