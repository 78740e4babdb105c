"""Results of panoptic quality as tables, as Detectron2's flat dictionary and as JSON."""

import math
from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

_SUFFIXES = {"All": "", "Things": "_th", "Stuff": "_st"}  # of PQ, SQ and RQ in Detectron2's names
_KEYS = ("pq", "sq", "rq")
Results = Mapping[str, Mapping[Any, Any]]  # the return value of PanopticQuality.results


def panoptic_table(results: Results) -> str:
    """Return a table of PQ, SQ and RQ in percent and the number of classes, for all classes, things
    and stuff."""
    rows = [
        [group, *(100 * results[group][key] for key in _KEYS), results[group]["n"]]
        for group in _SUFFIXES
    ]
    return tabulate(rows, ["", "PQ", "SQ", "RQ", "classes"], "pipe", floatfmt=".3f")


def class_table(results: Results, names: Mapping[int, str]) -> str:
    """Return a table of PQ, SQ and RQ in percent of each class.

    Args:
        results: the results.
        names: {category id: name of the class}.
    """
    rows = [
        [names[category], *(100 * qualities[key] for key in _KEYS)]
        for category, qualities in results["per_class"].items()
    ]
    return tabulate(rows, ["class", "PQ", "SQ", "RQ"], "pipe", floatfmt=".3f", disable_numparse=[0])


def in_percent(results: Results, names: Mapping[int, str]) -> dict[str, float]:
    """Return the results in percent as a flat dictionary with the names of Detectron2's evaluators,
    e.g. ``PQ``, ``SQ_th`` and ``RQ-<class>``."""
    flat = {
        f"{key.upper()}{suffix}": 100 * results[group][key]
        for group, suffix in _SUFFIXES.items()
        for key in _KEYS
    }
    for category, qualities in results["per_class"].items():
        flat |= {f"{key.upper()}-{names[category]}": 100 * qualities[key] for key in _KEYS}
    return flat


def as_json(results: Results) -> dict[str, dict[str, Any]]:
    """Return the results as panopticapi writes them.

    Category ids are text, and a class that does not count has the value 0, because JSON has no nan.
    """
    return {
        group: {
            str(key): {k: _nan_to_zero(v) for k, v in value.items()}
            if isinstance(value, dict)
            else _nan_to_zero(value)
            for key, value in entries.items()
        }
        for group, entries in results.items()
    }


def _nan_to_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
