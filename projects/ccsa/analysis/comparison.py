"""Compare groups of runs: a table for the terminal and for Markdown."""

import os
import platform
from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.data import DatasetCatalog
from tabulate import tabulate

from ccsa.analysis.evidence import Difference, Interval
from ccsa.analysis.measure import Cost, measure
from ccsa.analysis.runs import Group, Metric, Run, Spread
from ccsa.checkpoint import Checkpointer
from ccsa.data.image_reader import intensity_range, read_image
from ccsa.engine.checks import check_dataset, check_model
from ccsa.engine.setup import describe_device
from ccsa.engine.trainer import Trainer
from ccsa.errors import UserError
from ccsa.utils.run_folders import last_weights

ABSENT = "-"

_MEASURED = ("parameters", "FLOPs", "ms per image", "memory, image")
_EVIDENCE = ("95 % interval", "difference")
_COST_HEADERS = ("parameters", "FLOPs", "ms per image", "memory, run", "memory, image")


class Row(NamedTuple):
    """One row of a comparison.

    Attributes:
        name: the name of the group.
        runs: the number of runs.
        values: the values of the metric, one for each run.
        memory: the highest peak in bytes that a run recorded.
        cost: the cost of one image, measured on this machine; None if it was not measured.
        interval: the mean of the metric with its 95 % interval; None if it is not known.
        difference: the difference to the baseline; None for the baseline itself, or if it is not
            known.
    """

    name: str
    runs: int
    values: Spread
    memory: int | None
    cost: Cost | None
    interval: Interval | None = None
    difference: Difference | None = None


class Comparison(NamedTuple):
    """The rows of a comparison.

    Attributes:
        metric: the name of the metric.
        rows: one row for each group.
        notes: sentences that explain the rows.
        costs: whether the costs of one image were requested.
        baseline: the name of the row that the others are compared with.
    """

    metric: str
    rows: list[Row]
    notes: list[str]
    costs: bool = True
    baseline: str = ""

    @property
    def sentences(self) -> list[str]:
        """What follows from the differences to the baseline, one sentence for each row."""
        return [
            f"{row.name} compared with {self.baseline}: {row.difference.sentence}"
            for row in self.rows
            if row.difference
        ]

    def table(self, style: str = "simple") -> str:
        """Return the table as text in a format of tabulate, e.g. ``simple`` or ``github``.

        Without costs, the table has no columns for them.
        """
        headers, cells = self.cells()
        align = ["left", *["right"] * (len(headers) - 1)]
        return tabulate(cells, headers, style, colalign=align, disable_numparse=True)

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the headers and the rows of the table as text."""
        headers = ["", "runs", self.metric, "std", "min to max", *_EVIDENCE, *_COST_HEADERS]
        rows = [_cells(row) for row in self.rows]
        left_out = set() if self.costs else set(_MEASURED)
        for name in _EVIDENCE:
            column = headers.index(name)
            if all(row[column] == ABSENT for row in rows):
                left_out.add(name)
        kept = [i for i, name in enumerate(headers) if name not in left_out]
        headers, *rows = ([row[i] for i in kept] for row in (headers, *rows))
        return headers, rows

    def markdown(self) -> str:
        """Return the table, its sentences and its notes as Markdown."""
        notes = "\n".join(f"* {note}" for note in (*self.sentences, *self.notes))
        return f"{self.table('github')}\n\n{notes}\n"


def compare(groups: Sequence[Group], metric: Metric, costs: bool = True) -> Comparison:
    """Compare groups of runs.

    Args:
        groups: the groups, see :func:`ccsa.analysis.runs.group_runs`.
        metric: see :func:`ccsa.analysis.runs.choose_metric`.
        costs: measure the cost of each group's first run on this machine; otherwise only values
            that the runs recorded are shown.
    """
    rows, notes = [], ["std is the standard deviation over runs (n - 1)"]
    for group, spread in zip(groups, metric.values, strict=True):
        cost = None
        if costs:
            try:
                cost = measure_run(group.runs[0])
            except UserError as error:
                notes.append(f"{group.name} is not measured: {error}")
        seeds = [run.cfg.SEED for run in group.runs if run.cfg.SEED >= 0]
        if len(set(seeds)) < len(seeds):
            notes.append(
                f"{group.name} has runs of the same seed ({', '.join(map(str, sorted(seeds)))}), "
                "so its std is too small"
            )
        peaks = [run.memory for run in group.runs if run.memory]
        rows.append(Row(group.name, len(group.runs), spread, max(peaks, default=None), cost))
    if not any(metric.values):
        notes.append(
            f"no run has a value of {metric.label}, because its results are nan in every run"
        )
    if any(row.memory for row in rows):
        notes.append(
            "memory, run: the highest peak that a run recorded in training and evaluation (on a "
            "CPU the size of the process, on a GPU the memory allocated by PyTorch)"
        )
    if any(row.cost for row in rows):
        cfg = groups[0].runs[0].cfg
        notes += [
            "parameters include those that are used in training only; FLOPs: one multiply-add is "
            "one; FLOPs, time and memory (beyond the weights) are those of one image of "
            f"{cfg.DATASETS.TEST[0]}, without sliding windows, scales and flips",
            f"measured on {describe_device(cfg.MODEL.DEVICE).removeprefix('device: ')}, "
            f"{platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}",
        ]
    return Comparison(metric.label, rows, notes, costs)


def measure_run(run: Run, **repeats: int) -> Cost:
    """Return the cost of a run's model, with its weights, for its first test image.

    Args:
        run: the run.
        repeats: ``warmup`` and ``repeats`` of :func:`ccsa.analysis.measure.measure`.

    Raises:
        UserError: the run has no test dataset or no checkpoint, or a file cannot be read.
    """
    if not run.cfg.DATASETS.TEST:
        raise UserError(
            "its configuration has no test dataset to take an image from; set DATASETS.TEST"
        )
    name = run.cfg.DATASETS.TEST[0]
    check_dataset(name)
    intensities = intensity_range(run.cfg.INPUT.INTENSITY_RANGE)
    image = read_image(DatasetCatalog.get(name)[0]["file_name"], intensity_range=intensities)
    weights = last_weights(run.folder)
    if weights is None:
        raise UserError(f"run {run.folder} has no checkpoint; train it again")
    check_model(run.cfg)
    model = Trainer.build_model(run.cfg)
    Checkpointer(model).load(str(weights))
    return measure(run.cfg, model, image, **repeats)


def _cells(row: Row) -> list[str]:
    values, cost = row.values, row.cost
    return [
        row.name,
        str(row.runs),
        _number(values.mean, "{:.1f}"),
        _number(values.deviation, "{:.1f}"),
        f"{min(values):.1f} to {max(values):.1f}" if len(values) > 1 else ABSENT,
        _interval(row.interval),
        _difference(row.difference),
        f"{three_digits(cost.parameters / 1e6)} M" if cost else ABSENT,
        f"{three_digits(cost.flops / 1e9)} G" if cost else ABSENT,
        three_digits(cost.seconds * 1e3) if cost else ABSENT,
        _number(row.memory, "{:.2f} GiB", 2**30),
        _number(cost and cost.memory, "{:.1f} MiB", 2**20),
    ]


def _interval(found: Interval | None) -> str:
    return ABSENT if found is None else f"{found.low:.1f} to {found.high:.1f}"


def _difference(found: Difference | None) -> str:
    if found is None:
        return ABSENT
    return f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def three_digits(value: float) -> str:
    """Return a number with three significant digits, or all digits of its integer part.

    Example:
        >>> three_digits(0.1234), three_digits(12.34), three_digits(12345)
        ('0.123', '12.3', '12,345')
    """
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def _number(value: float | None, style: str, unit: float = 1.0) -> str:
    return ABSENT if value is None else style.format(value / unit)
