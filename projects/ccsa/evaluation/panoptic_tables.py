"""Results of panoptic quality, as they are printed and written."""

import math
from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

_SUFFIXES = {"All": "", "Things": "_th", "Stuff": "_st"}  # of PQ, SQ and RQ, as in Detectron2
_KEYS = ("pq", "sq", "rq")
Results = Mapping[str, Mapping[Any, Any]]  # as PanopticQuality.results gives them


def panoptic_table(results: Results) -> str:
    """PQ, SQ and RQ in percent of all classes, things and stuff, and how many classes count."""
    rows = [
        [group, *(100 * results[group][key] for key in _KEYS), results[group]["n"]]
        for group in _SUFFIXES
    ]
    return tabulate(rows, ["", "PQ", "SQ", "RQ", "classes"], "pipe", floatfmt=".3f")


def class_table(results: Results, names: Mapping[int, str]) -> str:
    """PQ, SQ and RQ in percent of each class, by its name."""
    rows = [
        [names[category], *(100 * found[key] for key in _KEYS)]
        for category, found in results["per_class"].items()
    ]
    return tabulate(rows, ["class", "PQ", "SQ", "RQ"], "pipe", floatfmt=".3f", disable_numparse=[0])


def in_percent(results: Results, names: Mapping[int, str]) -> dict:
    """Flat, under the names that Detectron2's evaluators use."""
    flat = {
        f"{key.upper()}{suffix}": 100 * results[group][key]
        for group, suffix in _SUFFIXES.items()
        for key in _KEYS
    }
    for category, found in results["per_class"].items():
        flat |= {f"{key.upper()}-{names[category]}": 100 * found[key] for key in _KEYS}
    return flat


def as_json(results: Results) -> dict[str, dict[str, Any]]:
    """As panopticapi writes them: category ids as text, and 0 for what does not count."""
    return {
        group: {
            str(key): {k: _number(v) for k, v in value.items()}
            if isinstance(value, dict)
            else _number(value)
            for key, value in found.items()
        }
        for group, found in results.items()
    }


def _number(value: float) -> float:
    return 0.0 if math.isnan(value) else value
