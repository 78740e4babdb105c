"""The page of a comparison of runs."""

import io
import json
import math
from importlib import resources
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure

from ccsa.analysis.comparison import Comparison, Row

_PAPER, _INK = "none", "#808080"  # the ink is replaced by the color of the text


def comparison_page(comparison: Comparison) -> str:
    """Return a comparison as a page of one file that needs no network.

    All numbers are also embedded as JSON, in the element with the id ``data``.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    source = resources.files("ccsa.report").joinpath("comparison.html").read_text("utf-8")
    headers, rows = comparison.cells()
    data = comparison_data(comparison)
    # "<" would end the element of the JSON or begin a comment.
    encoded = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return environment.from_string(source).render(
        comparison=comparison,
        headers=headers,
        rows=rows,
        chart=interval_chart(comparison),
        data=encoded,
    )


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return the numbers of a comparison; a value that is not known is None."""
    return {
        "metric": comparison.metric,
        "baseline": comparison.baseline,
        "rows": [_row(row) for row in comparison.rows],
        "notes": comparison.notes,
    }


def _row(row: Row) -> dict[str, Any]:
    cost, found, change = row.cost, row.interval, row.difference
    return {
        "name": row.name,
        "values": list(row.values),
        "mean": row.values.mean,
        "deviation": row.values.deviation,
        "interval": None if found is None else [_known(found.low), _known(found.high)],
        "difference": None
        if change is None
        else {
            "value": _known(change.value),
            "low": _known(change.low),
            "high": _known(change.high),
            "seeds": list(change.seeds),
            "images": change.images,
            "paired": change.paired,
            "between_seeds": change.between_seeds,
            "sentence": change.sentence,
        },
        "memory": row.memory,
        "cost": None if cost is None else cost._asdict(),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def interval_chart(comparison: Comparison) -> str:
    """Return a chart of the metric with its intervals and the single runs, as an SVG element whose
    lines and labels have the color of the surrounding text."""
    rows = comparison.rows
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ccsa"}):
        figure = Figure((7.0, 0.9 + 0.42 * len(rows)), layout="constrained", facecolor=_PAPER)
        axis = figure.subplots()
        axis.set_facecolor(_PAPER)
        for y, row in enumerate(rows):
            axis.plot(row.values, [y] * len(row.values), "o", ms=7, mfc="none", mec=_INK, alpha=0.8)
            mean = row.values.mean
            if mean is not None:
                axis.plot([mean], [y], "D", ms=6, color="#0072b2")
            if row.interval and math.isfinite(row.interval.low):
                axis.plot(row.interval[1:], [y, y], "-", lw=2.5, color="#0072b2", zorder=0)
        axis.set_yticks(range(len(rows)), [row.name.replace("$", r"\$") for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel(comparison.metric.replace("$", r"\$"))
        axis.grid(axis="x", color=_INK, alpha=0.3)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(left=False, colors=_INK)
        axis.xaxis.label.set_color(_INK)
        axis.spines["bottom"].set_color(_INK)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    text = stream.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")
