"""The page of a comparison of runs."""

import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2

from ccsa.analysis.comparison import Comparison, Row
from ccsa.report.charts import COLORS, INK, chart


def comparison_page(comparison: Comparison) -> str:
    """Return a comparison as a page of one file that needs no network.

    All numbers are also embedded as JSON, in the element with the id ``data``.
    """
    headers, rows = comparison.cells()
    data = comparison_data(comparison)
    return render_page(
        "comparison.html",
        comparison=comparison,
        headers=headers,
        rows=rows,
        chart=interval_chart(data),
        data=embedded_json(data),
    )


def render_page(template: str, **values: Any) -> str:
    """Return a template of this package with values; text in them is escaped."""
    loader = jinja2.FunctionLoader(
        lambda name: resources.files("ccsa.report").joinpath(name).read_text("utf-8")
    )
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def embedded_json(data: Any) -> str:
    """Return JSON for a script element, which ``<`` could end or turn into a comment."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


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


def interval_chart(comparison: Mapping[str, Any]) -> str:
    """Return a chart of the metric with its intervals and the single runs.

    Args:
        comparison: see :func:`comparison_data`.
    """
    rows = comparison["rows"]
    with chart(7.0, 0.9 + 0.42 * len(rows)) as ((axis,), result):
        for y, row in enumerate(rows):
            values = row["values"]
            axis.plot(values, [y] * len(values), "o", ms=7, mfc="none", mec=INK, alpha=0.8)
            if row["mean"] is not None:
                axis.plot([row["mean"]], [y], "D", ms=6, color=COLORS[0])
            if row["interval"] and None not in row["interval"]:
                axis.plot(row["interval"], [y, y], "-", lw=2.5, color=COLORS[0], zorder=0)
        # A dollar sign would begin a formula.
        axis.set_yticks(range(len(rows)), [row["name"].replace("$", r"\$") for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel(comparison["metric"].replace("$", r"\$"))
        axis.tick_params(left=False)
    return result[0]
