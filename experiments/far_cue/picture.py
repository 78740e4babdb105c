"""The picture of the far_cue experiment: scores as bars, and predictions for one image."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec

from ccsa.analysis.runs import Run
from ccsa.checkpoint import Checkpointer
from ccsa.data.formats.label_images import read_label_image
from ccsa.data.image_reader import read_image
from ccsa.data.synthetic.far_cue import VARIANTS
from ccsa.engine.trainer import Trainer
from ccsa.errors import UserError
from ccsa.inference import ModelPredictor
from ccsa.utils.run_folders import last_weights
from experiments.far_cue.networks import Network, Runs, mean_iou


def draw(networks: Sequence[Network], runs: Runs, path: Path) -> None:
    """Write a PNG with the mIoU of each network as bars.

    Below the bars, each variant has one row: a validation image, its ground truth, and the
    prediction of each network.
    """
    columns = 2 + len(networks)
    figure = Figure((1.7 * columns, 7.2), dpi=110, layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=[2.7, 4.2])
    _draw_bars(figure.add_subplot(halves[0]), networks, runs)
    grid = GridSpecFromSubplotSpec(len(VARIANTS), columns, halves[1])
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


def _draw_bars(axis: Axes, networks: Sequence[Network], runs: Runs) -> None:
    width = 0.8 / len(VARIANTS)
    colormap = matplotlib.colormaps["tab10"]
    for number, variant in enumerate(VARIANTS):
        values = [mean_iou(runs[variant, n.config]) for n in networks]
        x = np.arange(len(networks)) + (number - (len(VARIANTS) - 1) / 2) * width
        bars = axis.bar(x, values, width * 0.94, color=colormap(number), label=f"cue: {variant}")
        axis.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=9)
    axis.set_xticks(range(len(networks)), [n.name.replace("-and-", "-and-\n") for n in networks])
    axis.set(ylabel="mIoU", ylim=(0, 1.12))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _panels(variant: str, runs: Sequence[Run]) -> list[np.ndarray]:
    """Return the first validation image, its ground truth and the predictions, each (H, W, 3).

    Raises:
        UserError: a run has no checkpoint, or a file cannot be read.
    """
    name = f"far_cue_{variant}_val"
    record = DatasetCatalog.get(name)[0]
    colors = np.array(MetadataCatalog.get(name).stuff_colors, np.uint8)
    image = read_image(record["file_name"])
    panels = [image, colors[read_label_image(Path(record["sem_seg_file_name"]))]]
    for run in runs:
        weights = last_weights(run.folder)
        if weights is None:
            raise UserError(f"run {run.folder} has no checkpoint; run the experiment again")
        model = Trainer.build_model(run.cfg)
        Checkpointer(model).load(str(weights))
        outputs = ModelPredictor(run.cfg, model)(image)
        panels.append(colors[outputs["sem_seg"].argmax(0).numpy()])
    return panels
