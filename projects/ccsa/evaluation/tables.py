"""Metrics as tables for the terminal."""

import math
from collections.abc import Mapping

from tabulate import tabulate

_ABSENT = "-"


def metric_table(metrics: Mapping[str, float]) -> str:
    """Return metrics in percent as a table of one row; a value that is not defined is ``-``.

    Example:
        >>> print(metric_table({"AP": 41.25, "APs": float("nan")}))
        |    AP |   APs |
        |------:|------:|
        | 41.25 |     - |
    """
    row = [_cell(value) for value in metrics.values()]
    align = ["right"] * len(row)
    return tabulate([row], list(metrics), "pipe", colalign=align, disable_numparse=True)


def class_table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Return the metrics of each class as a table, in percent.

    Args:
        columns: ``{metric: {class: value}}``, with the same classes for each metric.

    Example:
        >>> print(class_table({"AP": {"cell": 41.25}, "AR": {"cell": 50.0}}))
        | class   |    AP |    AR |
        |:--------|------:|------:|
        | cell    | 41.25 | 50.00 |
    """
    names = next(iter(columns.values()))
    rows = [[name, *(_cell(values[name]) for values in columns.values())] for name in names]
    align = ["left", *["right"] * len(columns)]
    headers = ["class", *columns]
    return tabulate(rows, headers, "pipe", colalign=align, disable_numparse=True)


def _cell(value: float) -> str:
    return _ABSENT if math.isnan(value) else f"{value:.2f}"
