"""The networks that are trained on far_cue, their table, and the scores that theory predicts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tabulate import tabulate

from ccsa.analysis.runs import Run
from ccsa.data.synthetic.far_cue import VARIANTS


class Network(NamedTuple):
    """A network of the experiment.

    Attributes:
        config: the last part of its configurations ``configs/far_cue/<variant>_<config>.yaml``.
        name: its name in tables and pictures.
    """

    config: str
    name: str


# Criss-cross attention, by recurrence.
RECURRENCES = (
    Network("plain", "R = 0 (no block)"),
    Network("ccnet_R1", "criss-cross, R = 1"),
    Network("ccnet_R2", "criss-cross, R = 2"),
)
OTHER_BLOCKS = (
    Network("nonlocal", "non-local"),
    Network("sa", "squeeze-and-attention"),
    Network("se", "squeeze-and-excitation"),
)
# The range of mIoU (0 to 1) that follows from what a network can see, by variant and config.
EXPECTED_MIOU = {
    **{(variant, "plain"): (0.0, 0.40) for variant in VARIANTS},
    ("cross", "ccnet_R1"): (0.95, 1.0),
    ("any", "ccnet_R1"): (0.0, 0.75),
    ("any", "ccnet_R2"): (0.95, 1.0),
}

Runs = Mapping[tuple[str, str], Run]  # by variant and config


def mean_iou(run: Run) -> float:
    """Return the mIoU of a run, from 0 to 1."""
    return run.results["sem_seg"]["mIoU"] / 100


def table(networks: Sequence[Network], runs: Runs, style: str = "simple") -> str:
    """Return a table of mIoU (0 to 1) with one row for each network.

    Args:
        networks: the networks, in the order of the rows.
        runs: the run of each variant and network.
        style: a format of tabulate, e.g. ``simple`` or ``github``.
    """
    rows = [[n.name, *(f"{mean_iou(runs[v, n.config]):.2f}" for v in VARIANTS)] for n in networks]
    headers = ["mIoU", *(f"cue: {variant}" for variant in VARIANTS)]
    return tabulate(
        rows, headers, style, colalign=["left", "right", "right"], disable_numparse=True
    )


def deviations(runs: Runs) -> list[str]:
    """Return a description of each run whose mIoU is outside of the expected range."""
    found = []
    for (variant, config), (low, high) in EXPECTED_MIOU.items():
        value = mean_iou(runs[variant, config])
        if not low <= value <= high:
            found.append(f"{variant}_{config} has mIoU {value:.3f}, not {low:.2f} to {high:.2f}")
    return found
