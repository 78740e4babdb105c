"""Compute CCNet's table of costs: what each context module adds to a network.

    python -m experiments.ccnet_costs

The table covers the recurrence R and the non-local block (CCNet, TPAMI 2020). For an image of
769x769 pixels the input of a module is (1, 512, 97, 97); query and key have 64 channels and value
has 512. The paper counts a multiply-add as two FLOPs and leaves out softmax and additions; its
memory is that of training.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from tabulate import tabulate
from torch import nn

from ccsa.analysis import count_flops
from ccsa.analysis.measure import peak_bytes
from ccsa.blocks import CrissCross, NonLocal

SHAPE = (1, 512, 97, 97)
CHANNELS = SHAPE[1]


class PublishedCost(NamedTuple):
    """A module and the cost that the paper reports for it.

    Attributes:
        build: returns the module of this project.
        gflops: the GFLOPs that the module adds, two for each multiply-add.
        memory: the memory in MB that the module adds in training.
    """

    name: str
    build: Callable[[], nn.Module]
    gflops: float
    memory: float


PUBLISHED_COSTS = [
    PublishedCost("RCCA, R = 1", lambda: CrissCross(CHANNELS, recurrence=1), 8.3, 53),
    PublishedCost("RCCA, R = 2", lambda: CrissCross(CHANNELS, recurrence=2), 16.5, 127),
    PublishedCost("RCCA, R = 3", lambda: CrissCross(CHANNELS, recurrence=3), 24.7, 208),
    PublishedCost(
        "non-local",
        lambda: NonLocal(CHANNELS, reduction=8, value_reduction=1, out_conv=False),
        108,
        1411,
    ),
]


def gflops(module: nn.Module) -> float:
    """Return the GFLOPs of a module as the paper counts them, two for each multiply-add."""
    return 2 * count_flops(module, torch.zeros(SHAPE)) / 1e9


def training_memory(module: nn.Module) -> float:
    """Return the peak memory of a forward and backward pass in MiB, beyond weights, input and
    output."""
    x = torch.randn(SHAPE).contiguous(memory_format=torch.channels_last)
    grad = torch.ones_like(x)

    def step() -> None:
        module(x.requires_grad_()).backward(grad)
        x.grad = None
        module.zero_grad()

    step()
    return (peak_bytes(step, torch.device("cpu")) - grad.numel() * grad.element_size()) / 2**20


def cost_table() -> str:
    """Return the table: the costs computed here next to those of the paper."""
    rows = []
    for published in PUBLISHED_COSTS:
        module = published.build()
        computed = gflops(module)
        rows.append(
            [
                published.name,
                f"+{computed:.2f}",
                f"+{published.gflops:g}",
                f"{100 * (computed / published.gflops - 1):+.1f} %",
                f"{training_memory(module):.0f}",
                f"{published.memory:g}",
            ]
        )
    headers = [
        *("", "GFLOPs", "paper", "difference"),
        *("MiB in training, here", "paper, MB"),
    ]
    return tabulate(rows, headers, colalign=["left", *["right"] * 5], disable_numparse=True)


NOTES = [
    "GFLOPs count a multiply-add as two, as in the paper; the other tables of this project and "
    "fvcore count it as one",
    "memory measured here is the peak of a forward and backward pass on the CPU, beyond weights, "
    "input and output; the paper read its memory off a GPU, for its own implementation",
    "the non-local block here is NonLocal of ccsa, whose attention (PyTorch's "
    "scaled_dot_product_attention, without a fused kernel at these widths) holds three matrices of "
    "all pairs of positions at its peak; docs/BENCHMARKS.md measures separate matrix "
    "multiplications and a softmax, which hold four",
]


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(cost_table())
    for note in NOTES:
        print(f"note: {note}")


if __name__ == "__main__":
    main()
