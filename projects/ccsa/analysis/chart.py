"""A comparison of runs as a bar chart."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccsa.analysis.comparison import Comparison, three_digits

_PANEL, _WIDE = 2.4, 4.6  # inches: width of a cost's panel and of the metric's
_ROW, _MARGIN = 0.5, 1.1  # inches: height of a line, and of title and axis
_DPI = 110


def draw_chart(comparison: Comparison, path: Path) -> None:
    """Write a PNG: the mean of the metric as bars, standard deviation and every run on them, and
    beside it parameters, FLOPs and time where they are known. The first line is on top."""
    rows = comparison.rows
    panels = [
        (title, [getattr(row.cost, key) / unit for row in rows])
        for title, key, unit in (
            ("parameters (M)", "parameters", 1e6),
            ("FLOPs per image (G)", "flops", 1e9),
            ("ms per image", "seconds", 1e-3),
        )
        if all(row.cost for row in rows)
    ]
    figure = Figure(
        (_WIDE + _PANEL * len(panels), _MARGIN + _ROW * len(rows)), dpi=_DPI, layout="constrained"
    )
    axes = figure.subplots(
        1,
        1 + len(panels),
        sharey=True,
        squeeze=False,
        width_ratios=[_WIDE, *[_PANEL] * len(panels)],
    )[0]
    colours = matplotlib.colormaps["tab10" if len(rows) <= 10 else "tab20"].colors
    colours = [colours[i % len(colours)] for i in range(len(rows))]
    means = [row.values.mean or 0.0 for row in rows]
    _bars(axes[0], comparison.metric, means, colours)
    for y, row in enumerate(rows):
        _seeds(axes[0], y, row.values)
    axes[0].set_yticks(range(len(rows)), [row.name for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    for axis, (title, values) in zip(axes[1:], panels, strict=True):
        _bars(axis, title, values, colours)
        for y, value in enumerate(values):
            axis.annotate(
                three_digits(value), (value, y), (3, 0), textcoords="offset points", va="center"
            )
        axis.set_xlim(0, max(values) * 1.35 or 1)  # room for the number
        axis.tick_params(left=False)
    figure.savefig(path)


def _bars(axis: Axes, title: str, values: Sequence[float], colours: Sequence) -> None:
    axis.barh(range(len(values)), values, color=colours, height=0.65)
    axis.set_title(title, fontsize="medium")
    axis.locator_params(axis="x", nbins=4)  # more would run into those of the next panel
    axis.spines[["top", "right"]].set_visible(False)


def _seeds(axis: Axes, y: int, values: Sequence[float]) -> None:
    """Each run as a point, and mean and deviation in figures behind the rightmost one."""
    if not values:
        return
    axis.errorbar(values.mean, y, xerr=values.deviation or 0.0, color="black", capsize=4)
    axis.plot(values, [y] * len(values), "o", ms=5, mfc="white", mec="black", zorder=3)
    text = f"{values.mean:.1f}" + (f" ± {values.deviation:.1f}" if values.deviation else "")
    right = max([*values, values.mean + (values.deviation or 0.0)])
    axis.annotate(text, (right, y), (6, 0), textcoords="offset points", va="center")
    axis.set_xlim(0, max(axis.get_xlim()[1], right * 1.3))
