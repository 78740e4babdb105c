"""The data of an evaluation report: everything that the page shows, as one JSON."""

import datetime
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import ccsa
from ccsa.analysis.comparison import Comparison, compare
from ccsa.analysis.evidence import Interval
from ccsa.analysis.group_evidence import with_evidence
from ccsa.analysis.runs import Group, Run, choose_metric, group_runs
from ccsa.errors import UserError
from ccsa.report.comparison import comparison_data
from ccsa.report.run_files import RunFiles
from ccsa.report.sections.detections import detection_analysis, semantic_analysis
from ccsa.report.sections.pictures import MOST, worst_images
from ccsa.report.sections.provenance import cost, provenance
from ccsa.report.sections.scores import class_metrics, overall_metrics
from ccsa.report.sections.training import blocks, training_curves

SECTIONS: dict[str, Callable[[RunFiles], Any]] = {
    "metrics": overall_metrics,
    "classes": class_metrics,
    "detections": detection_analysis,
    "semantic": semantic_analysis,
    "curves": training_curves,
    "blocks": blocks,
    "cost": cost,
    "provenance": provenance,
}


def report_data(runs: Sequence[Run], pictures: int = MOST) -> dict[str, Any]:
    """Return the data of a report of one or several runs.

    Runs that differ only in their seed form one configuration. The first configuration is the
    baseline of the others, and the sections are those of the first run of each.

    Args:
        runs: finished runs on one dataset.
        pictures: the number of worst images, of all configurations together.

    Returns:
        A dictionary that JSON can represent, with

        * ``title``, ``created`` (a date) and ``version``;
        * ``verdict``: ``sentences``, and ``comparison``, see
          :func:`ccsa.report.comparison.comparison_data`;
        * ``runs``: for each configuration ``name``, ``folder``, the ``SECTIONS``, ``worst`` (see
          :func:`ccsa.report.sections.pictures.worst_images`) and ``notes``, which state why a
          section is missing.

    Raises:
        UserError: the runs have no metric in common, or were evaluated on different datasets.
    """
    groups = group_runs(runs)
    metric = choose_metric(groups)
    # Notes on columns of a table that the page does not have are left out.
    comparison = compare(groups, metric, costs=False)._replace(notes=[])
    comparison = with_evidence(comparison, groups, metric)
    share = max(1, pictures // len(groups))
    return finite(
        {
            "title": " and ".join(group.name for group in groups),
            "created": datetime.date.today().isoformat(),
            "version": ccsa.__version__,
            "verdict": {
                "sentences": _sentences(comparison),
                "comparison": comparison_data(comparison),
            },
            "runs": [_run_data(group, share) for group in groups],
        }
    )


def _run_data(group: Group, pictures: int) -> dict[str, Any]:
    files = RunFiles(group.runs[0])
    data: dict[str, Any] = {"name": group.name, "folder": str(files.run.folder)}
    notes = []

    sections = SECTIONS | {"worst": functools.partial(worst_images, most=pictures)}
    for name, section in sections.items():
        try:
            data[name] = section(files)
        except UserError as error:
            data[name] = None
            notes.append(f"{name}: {error}")
    return data | {"notes": notes}


def _sentences(comparison: Comparison) -> list[str]:
    """Return the metric of every configuration with its interval, and the differences."""
    found = []
    for row in comparison.rows:
        if row.values.mean is None:
            found.append(
                f"{row.name}: {comparison.metric} is not known, because nothing was found."
            )
            continue
        text = f"{row.name}: {comparison.metric} {row.values.mean:.1f}"
        found.append(text + _basis(row.interval, row.runs))
    return found + comparison.sentences


def _basis(interval: Interval | None, runs: int) -> str:
    if interval is None or not math.isfinite(interval.low):
        return "."
    source = "the choice of the validation images"
    if runs > 1:
        source += f" and {runs} seeds"
    return f", with a 95 % interval of {interval.low:.1f} to {interval.high:.1f} over {source}."


def finite(value: Any) -> Any:
    """Return nested data in which NaN and infinity are None, because JSON has neither."""
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
