"""The page of an evaluation report: one file that needs no network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from ccsa.report.charts import calibration_chart, recall_chart, threshold_chart, training_chart
from ccsa.report.comparison import embedded_json, interval_chart, render_page
from ccsa.utils.files import write_text

_MATRIX = 20  # classes of a confusion matrix that is shown completely
_COLORMAP = "cividis"  # perceptually uniform, and the same for color-blind people


def render_report(data: Mapping[str, Any]) -> str:
    """Return the page of a report.

    Args:
        data: see :func:`ccsa.report.evaluation.report_data`; all of it is embedded as JSON in the
            element with the id ``data``.
    """
    charts = []
    for run in data["runs"]:
        found = run["detections"]
        charts.append(
            {
                "thresholds": threshold_chart(found["curves"]) if found else "",
                "recall": recall_chart(found["curves"]) if found else "",
                "calibration": calibration_chart(found["calibration"]) if found else "",
                "training": training_chart(run["curves"]) if run["curves"] else "",
                "confusion": [
                    confusion_view(part["confusion"])
                    for part in (found, run["semantic"])
                    if part is not None
                ],
            }
        )
    comparison = data["verdict"]["comparison"]
    return render_page(
        "report.html",
        data=data,
        charts=charts,
        comparison=interval_chart(comparison),
        encoded=embedded_json(data),
        number=number,
    )


def write_report(data: Mapping[str, Any], file: Path) -> None:
    """Write the page of a report, complete or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    write_text(file, render_report(data))


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with its digits after the point, and a dash if it is not known.

    Example:
        >>> number(12.345), number(None)
        ('12.3', '-')
    """
    return "-" if value is None else f"{value:,.{digits}f}"


def confusion_view(confusion: Mapping[str, Any]) -> dict[str, Any]:
    """Return a confusion matrix with colors.

    Returns:
        The entries of the matrix, and ``rows`` (None above 20 classes) of cells with ``count``,
        ``share`` of the row in percent, ``background`` and ``color``.
    """
    counts = confusion["counts"]
    if counts is None or len(counts) > _MATRIX:
        return {**confusion, "rows": None}
    return {**confusion, "rows": [[_cell(n, sum(row)) for n in row] for row in counts]}


def _cell(count: int, total: int) -> dict[str, Any]:
    share = count / total if total else 0.0
    shade = matplotlib.colormaps[_COLORMAP](share)
    light = 0.2126 * shade[0] + 0.7152 * shade[1] + 0.0722 * shade[2] > 0.45
    return {
        "count": count,
        "share": 100 * share,
        "background": matplotlib.colors.to_hex(shade),
        "color": "#000" if light else "#fff",
    }
