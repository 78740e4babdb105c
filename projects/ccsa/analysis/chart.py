"""Draw a comparison of runs as a bar chart."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccsa.analysis.comparison import Comparison, three_digits
from ccsa.analysis.runs import Spread

# Sizes in inches.
_COST_WIDTH, _METRIC_WIDTH = 2.4, 4.6
_ROW_HEIGHT, _MARGIN = 0.5, 1.1  # the margin holds the titles and the axis
_DPI = 110


def draw_chart(comparison: Comparison, path: Path) -> None:
    """Write a chart as PNG, or as another format that the suffix of the path names.

    A bar shows the mean of the metric, an error bar its standard deviation, and points the runs.
    Parameters, FLOPs and time are shown next to it if all of them are known. The first row is on
    top.
    """
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
    size = _METRIC_WIDTH + _COST_WIDTH * len(panels), _MARGIN + _ROW_HEIGHT * len(rows)
    figure = Figure(size, dpi=_DPI, layout="constrained")
    axes = figure.subplots(
        1,
        1 + len(panels),
        sharey=True,
        squeeze=False,
        width_ratios=[_METRIC_WIDTH, *[_COST_WIDTH] * len(panels)],
    )[0]
    colormap = matplotlib.colormaps["tab10" if len(rows) <= 10 else "tab20"]
    colors = [colormap(i % colormap.N) for i in range(len(rows))]
    means = [row.values.mean or 0.0 for row in rows]
    _draw_bars(axes[0], comparison.metric, means, colors)
    for y, row in enumerate(rows):
        _draw_runs(axes[0], y, row.values)
    axes[0].set_yticks(range(len(rows)), [row.name for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    for axis, (title, values) in zip(axes[1:], panels, strict=True):
        _draw_bars(axis, title, values, colors)
        for y, value in enumerate(values):
            axis.annotate(
                three_digits(value), (value, y), (3, 0), textcoords="offset points", va="center"
            )
        axis.set_xlim(0, max(values) * 1.35 or 1)  # room for the number
        axis.tick_params(left=False)
    figure.savefig(path)


def _draw_bars(axis: Axes, title: str, values: Sequence[float], colors: Sequence) -> None:
    axis.barh(range(len(values)), values, color=colors, height=0.65)
    axis.set_title(title, fontsize="medium")
    axis.locator_params(axis="x", nbins=4)  # more labels would overlap those of the next panel
    axis.spines[["top", "right"]].set_visible(False)


def _draw_runs(axis: Axes, y: int, values: Spread) -> None:
    """Draw each run as a point, and write mean and deviation to the right of them."""
    if values.mean is None:
        return
    axis.errorbar(values.mean, y, xerr=values.deviation or 0.0, color="black", capsize=4)
    axis.plot(values, [y] * len(values), "o", ms=5, mfc="white", mec="black", zorder=3)
    text = f"{values.mean:.1f}" + (f" ± {values.deviation:.1f}" if values.deviation else "")
    right = max([*values, values.mean + (values.deviation or 0.0)])
    axis.annotate(text, (right, y), (6, 0), textcoords="offset points", va="center")
    axis.set_xlim(0, max(axis.get_xlim()[1], right * 1.3))
