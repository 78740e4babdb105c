"""The moving_cue experiment: what a network of one frame and one of five make of it, as a table."""

from collections.abc import Mapping

from tabulate import tabulate

from ccsa.analysis.runs import Run
from experiments.far_cue.networks import Network, score

# Of the files configs/moving_cue/<config>.yaml.
NETWORKS = (
    Network("T1", "T = 1 (the labelled frame)"),
    Network("T5", "T = 5, 3D criss-cross, R = 2"),
)
# mIoU from 0 to 1 that tells T apart, by config: (at least, at most).
EXPECTED = {"T1": (0.0, 0.40), "T5": (0.90, 1.0)}

Runs = Mapping[str, Run]  # by config


def table(runs: Runs, style: str = "simple") -> str:
    """mIoU from 0 to 1, a line for each network; ``style`` is one of tabulate's."""
    rows = [[n.name, f"{score(runs[n.config]):.2f}"] for n in NETWORKS]
    headers = ["mIoU", "cue: in earlier frames"]
    return tabulate(rows, headers, style, colalign=["left", "right"], disable_numparse=True)


def deviations(runs: Runs) -> list[str]:
    """What is not as the frames let expect, in words."""
    values = {config: score(runs[config]) for config in EXPECTED}
    return [
        f"moving_cue {config} has mIoU {values[config]:.3f}, not {low:.2f} to {high:.2f}"
        for config, (low, high) in EXPECTED.items()
        if not low <= values[config] <= high
    ]
