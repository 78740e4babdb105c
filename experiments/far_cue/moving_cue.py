"""The networks that are trained on moving_cue, with clips of one and of five frames, and their
table."""

from collections.abc import Mapping

from tabulate import tabulate

from ccsa.analysis.runs import Run
from experiments.far_cue.networks import Network, mean_iou

# Their configurations are configs/moving_cue/<config>.yaml.
NETWORKS = (
    Network("T1", "T = 1 (the labeled frame)"),
    Network("T5", "T = 5, 3D criss-cross, R = 2"),
)
# The range of mIoU (0 to 1) that follows from the frames that a network sees, by config.
EXPECTED_MIOU = {"T1": (0.0, 0.40), "T5": (0.90, 1.0)}

Runs = Mapping[str, Run]  # by config


def table(runs: Runs, style: str = "simple") -> str:
    """Return a table of mIoU (0 to 1) with one row for each network.

    Args:
        runs: the run of each network.
        style: a format of tabulate, e.g. ``simple`` or ``github``.
    """
    rows = [[n.name, f"{mean_iou(runs[n.config]):.2f}"] for n in NETWORKS]
    headers = ["", "mIoU, cue in earlier frames"]
    return tabulate(rows, headers, style, colalign=["left", "right"], disable_numparse=True)


def deviations(runs: Runs) -> list[str]:
    """Return a description of each run whose mIoU is outside of the expected range."""
    values = {config: mean_iou(runs[config]) for config in EXPECTED_MIOU}
    return [
        f"moving_cue {config} has mIoU {values[config]:.3f}, not {low:.2f} to {high:.2f}"
        for config, (low, high) in EXPECTED_MIOU.items()
        if not low <= values[config] <= high
    ]
