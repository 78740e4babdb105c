"""Charts of pages, as SVG elements whose lines and labels have the color of the text."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#808080"  # replaced by the color of the text
# Okabe and Ito's colors, which color-blind people can distinguish.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_STYLES = ("-", "--", "-.", ":")


@contextlib.contextmanager
def chart(width: float, height: float, parts: int = 1) -> Iterator[tuple[list[Axes], list[str]]]:
    """Yield the axes of a figure in inches, and a list that receives the SVG element at the end."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ccsa"}):
        figure = Figure((width, height), layout="constrained", facecolor="none")
        axes = list(figure.subplots(1, parts, squeeze=False)[0])
        result: list[str] = []
        yield axes, result
        for axis in axes:
            axis.set_facecolor("none")
            axis.grid(color=INK, alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
            axis.spines[["left", "bottom"]].set_color(INK)
            axis.tick_params(colors=INK)
            for label in (axis.xaxis.label, axis.yaxis.label, axis.title):
                label.set_color(INK)
            legend = axis.get_legend()
            for text in legend.get_texts() if legend else ():
                text.set_color(INK)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
        text = stream.getvalue()
        result.append(text[text.index("<svg") :].replace(INK, "currentColor"))


def threshold_chart(curves: Mapping[str, Any]) -> str:
    """Return precision, recall and F1 of all classes together over the score threshold."""
    grid, every = curves["thresholds"], curves["all"]
    with chart(6.4, 3.2) as ((axis,), result):
        for name, color, style in zip(("precision", "recall", "f1"), COLORS, _STYLES, strict=False):
            values = [float("nan") if v is None else v for v in every[name]]
            label = name.upper() if name == "f1" else name
            axis.plot(grid, values, style, color=color, label=label, lw=2)
        if every["best"]:
            axis.axvline(every["best"]["threshold"], color=INK, lw=1)
        axis.set(xlabel="score threshold", xlim=(0, 1), ylim=(0, 1.02))
        axis.legend(frameon=False)
    return result[0]


def recall_chart(curves: Mapping[str, Any]) -> str:
    """Return the precision of all classes together over their recall."""
    every = curves["all"]
    with chart(3.6, 3.2) as ((axis,), result):
        values = [float("nan") if v is None else v for v in every["over_recall"]]
        axis.plot(curves["recalls"], values, color=COLORS[0], lw=2)
        if every["best"]:
            axis.plot(every["best"]["recall"], every["best"]["precision"], "o", color=COLORS[1])
        axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    return result[0]


def calibration_chart(calibration: Mapping[str, Any]) -> str:
    """Return the share of correct detections over their score."""
    bins = [b for b in calibration["bins"] if b["count"]]
    with chart(3.6, 3.2) as ((axis,), result):
        axis.plot([0, 1], [0, 1], "--", color=INK, lw=1)
        x, y = [b["score"] for b in bins], [b["precision"] for b in bins]
        axis.plot(x, y, "o-", color=COLORS[0], lw=2)
        axis.set(xlabel="score", ylabel="share of correct detections", xlim=(0, 1), ylim=(0, 1.02))
    return result[0]


def training_chart(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return losses, learning rate and gradient norm over the iterations."""
    losses = [name for name in curves if name.startswith("loss_")]
    groups = [
        ("loss", ["total_loss", *losses]),
        ("learning rate", ["lr"]),
        ("gradient norm", ["grad_norm"]),
    ]
    groups = [(title, [n for n in names if n in curves]) for title, names in groups]
    groups = [(title, names) for title, names in groups if names]
    with chart(3.7 * len(groups), 3.2, len(groups)) as (axes, result):
        for axis, (title, names) in zip(axes, groups, strict=True):
            for i, name in enumerate(names):
                points = curves[name]
                label = name.removeprefix("loss_").replace("_", " ")
                style = _STYLES[i // len(COLORS) % len(_STYLES)]
                color = COLORS[i % len(COLORS)]
                axis.plot(points["iteration"], points["value"], style, color=color, label=label)
            axis.set(xlabel="iteration", title=title)
            if title != "learning rate":
                axis.set_ylim(bottom=0)
            if len(names) > 1:
                axis.legend(frameon=False, fontsize="small")
    return result[0]
