"""The far_cue experiment: how far each block sees, as a table and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec
from tabulate import tabulate

from ccsa.analysis.runs import Run
from ccsa.checkpoint import Checkpointer
from ccsa.data.formats.label_images import read_label_image
from ccsa.data.synthetic.far_cue import VARIANTS
from ccsa.engine.trainer import Trainer
from ccsa.errors import UserError
from ccsa.inference.predictor import Predictor
from ccsa.utils.images import read_image
from ccsa.utils.run_folders import last_weights


class Network(NamedTuple):
    """A network of the experiment.

    Attributes:
        config: of its files ``configs/far_cue/<variant>_<config>.yaml``.
        name: in the table.
    """

    config: str
    name: str


RECURRENCES = (
    Network("plain", "R = 0 (no block)"),
    Network("ccnet_R1", "criss-cross, R = 1"),
    Network("ccnet_R2", "criss-cross, R = 2"),
)
OTHERS = (
    Network("nonlocal", "non-local"),
    Network("sa", "squeeze-and-attention"),
    Network("se", "squeeze-and-excitation"),
)
# mIoU from 0 to 1 that tells R apart, (variant, config): (at least, at most).
EXPECTED = {
    **{(variant, "plain"): (0.0, 0.40) for variant in VARIANTS},
    ("cross", "ccnet_R1"): (0.95, 1.0),
    ("any", "ccnet_R1"): (0.0, 0.75),
    ("any", "ccnet_R2"): (0.95, 1.0),
}

Runs = Mapping[tuple[str, str], Run]  # by variant and config


def score(run: Run) -> float:
    """Its mIoU, from 0 to 1."""
    return run.results["sem_seg"]["mIoU"] / 100


def table(networks: Sequence[Network], runs: Runs, style: str = "simple") -> str:
    """mIoU from 0 to 1, a line for each network; ``style`` is one of tabulate's."""
    rows = [[n.name, *(f"{score(runs[v, n.config]):.2f}" for v in VARIANTS)] for n in networks]
    headers = ["mIoU", *(f"cue: {variant}" for variant in VARIANTS)]
    return tabulate(
        rows, headers, style, colalign=["left", "right", "right"], disable_numparse=True
    )


def deviations(runs: Runs) -> list[str]:
    """What is not as the receptive fields let expect, in words."""
    found = []
    for (variant, config), (low, high) in EXPECTED.items():
        value = score(runs[variant, config])
        if not low <= value <= high:
            found.append(f"{variant}_{config} has mIoU {value:.3f}, not {low:.2f} to {high:.2f}")
    return found


def draw(networks: Sequence[Network], runs: Runs, path: Path) -> None:
    """Write a PNG: the table as bars, and below it one validation image of each variant, its truth
    and what each network makes of it."""
    columns = 2 + len(networks)
    figure = Figure((1.7 * columns, 7.2), dpi=110, layout="constrained")
    upper, lower = figure.add_gridspec(2, 1, height_ratios=[2.7, 4.2])
    _bars(figure.add_subplot(upper), networks, runs)
    grid = GridSpecFromSubplotSpec(len(VARIANTS), columns, lower)
    for row, variant in enumerate(VARIANTS):
        panels = _panels(variant, [runs[variant, n.config] for n in networks])
        titles = ["image", "ground truth", *(n.name.replace(", ", "\n") for n in networks)]
        for column, (panel, title) in enumerate(zip(panels, titles, strict=True)):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(panel, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(title.replace(" (", "\n("), fontsize=9)
            if column == 0:
                axis.set_ylabel(f"cue: {variant}")
    figure.savefig(path)


def _bars(axis, networks: Sequence[Network], runs: Runs) -> None:
    width = 0.8 / len(VARIANTS)
    colours = matplotlib.colormaps["tab10"].colors
    for number, variant in enumerate(VARIANTS):
        values = [score(runs[variant, n.config]) for n in networks]
        at = np.arange(len(networks)) + (number - (len(VARIANTS) - 1) / 2) * width
        bars = axis.bar(at, values, width * 0.94, color=colours[number], label=f"cue: {variant}")
        axis.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=9)
    axis.set_xticks(range(len(networks)), [n.name.replace("-and-", "-and-\n") for n in networks])
    axis.set(ylabel="mIoU", ylim=(0, 1.12))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _panels(variant: str, runs: Sequence[Run]) -> list[np.ndarray]:
    """Image, truth and predictions (H, W, 3) of the first validation image."""
    name = f"far_cue_{variant}_val"
    record = DatasetCatalog.get(name)[0]
    colours = np.array(MetadataCatalog.get(name).stuff_colors, np.uint8)
    image = read_image(record["file_name"])
    panels = [image, colours[read_label_image(Path(record["sem_seg_file_name"]))]]
    for run in runs:
        weights = last_weights(run.folder)
        if weights is None:
            raise UserError(f"run {run.folder} has no checkpoint; run the experiment again")
        model = Trainer.build_model(run.cfg)
        Checkpointer(model).load(str(weights))
        outputs = Predictor(run.cfg, model)(image)
        panels.append(colours[outputs["sem_seg"].argmax(0).numpy()])
    return panels
