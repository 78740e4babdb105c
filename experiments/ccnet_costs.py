"""CCNet's cost table (TPAMI 2020, tables of R and of the non-local block), computed.

What a context module adds on a 769x769 image: its input is (1, 512, 97, 97), query and key have 64
channels, value has 512. The papers count a multiply-add as two FLOPs and leave out softmax and
additions; memory is that of training.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from tabulate import tabulate
from torch import nn

from ccsa.analysis.flops import count_flops
from ccsa.analysis.measure import peak_bytes
from ccsa.blocks import CrissCross, NonLocal

SHAPE = (1, 512, 97, 97)
CHANNELS = SHAPE[1]


class Line(NamedTuple):
    """A module and what the paper says that it adds: GFLOPs and MB."""

    name: str
    build: Callable[[], nn.Module]
    flops: float
    memory: float


LINES = [
    Line("RCCA, R = 1", lambda: CrissCross(CHANNELS, recurrence=1), 8.3, 53),
    Line("RCCA, R = 2", lambda: CrissCross(CHANNELS, recurrence=2), 16.5, 127),
    Line("RCCA, R = 3", lambda: CrissCross(CHANNELS, recurrence=3), 24.7, 208),
    Line(
        "non-local",
        lambda: NonLocal(CHANNELS, reduction=8, value_reduction=1, out_conv=False),
        108,
        1411,
    ),
]


def gflops(module: nn.Module) -> float:
    """As the paper counts, two for a multiply-add."""
    return 2 * count_flops(module, (torch.zeros(SHAPE),)) / 1e9


def training_memory(module: nn.Module) -> float:
    """MB at the peak of forward and backward, beyond weights, input and output."""
    x = torch.randn(SHAPE).contiguous(memory_format=torch.channels_last)
    grad = torch.ones_like(x)

    def step() -> None:
        module(x.requires_grad_()).backward(grad)
        x.grad = None
        module.zero_grad()

    step()
    return (peak_bytes(step, torch.device("cpu")) - grad.numel() * grad.element_size()) / 1e6


def paper_table() -> str:
    """The table, ours beside the paper's."""
    rows = []
    for line in LINES:
        module = line.build()
        flops = gflops(module)
        rows.append(
            [
                line.name,
                f"+{flops:.2f}",
                f"+{line.flops:g}",
                f"{100 * (flops / line.flops - 1):+.1f} %",
                f"{training_memory(module):.0f}",
                f"{line.memory:g}",
            ]
        )
    headers = [
        *("", "GFLOPs", "paper", "difference"),
        *("MB in training, here", "paper"),
    ]
    return tabulate(rows, headers, colalign=["left", *["right"] * 5], disable_numparse=True)


NOTES = [
    "GFLOPs count a multiply-add as two, as the paper does; the other tables of this project and "
    "fvcore count it as one",
    "memory here: peak of forward and backward beyond weights, input and output, on the CPU; the "
    "paper's was read off a GPU, for its own implementation",
]
