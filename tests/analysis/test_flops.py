"""Compare the FLOP counter with counts by hand: one multiply-add is one FLOP."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ccsa.analysis import count_flops, flop_analysis
from ccsa.blocks import CrissCross, NonLocal, SqueezeExcitation
from ccsa.insertion import insert_blocks
from ccsa.ops import criss_cross_attention


def products(*factors):
    """Count the multiply-adds of nested loops of these lengths, one by one."""
    count = 0
    for _ in range(factors[0]):
        count += products(*factors[1:]) if factors[1:] else 1
    return count


def test_a_convolution_and_a_linear_layer():
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(5 * 4 * 3, 7)
    )
    conv = products(4, 3, 5, 3, 9)  # rows, columns, channels out and in, positions of the kernel
    assert count_flops(model, torch.zeros(1, 3, 8, 6)) == conv + products(7, 60)


@pytest.mark.parametrize("size", [(4, 6), (1, 5), (2, 3, 4)])
@pytest.mark.parametrize("recurrence", [0, 1, 2])
def test_criss_cross_attention(size, recurrence):
    batch, channels, inner = 2, 16, 2
    block = CrissCross(channels, recurrence=recurrence, dims=len(size))
    per_position = 0
    positions = [(*at,) for at in torch.cartesian_prod(*map(torch.arange, size)).tolist()]
    for here in positions:
        cross = [p for p in positions if sum(a != b for a, b in zip(p, here, strict=True)) <= 1]
        attention = len(cross) * (inner + channels)  # a score, a share of the output
        projections = channels * (inner + inner + channels)
        per_position += attention + projections
    found = count_flops(block, torch.zeros(batch, channels, *size))
    assert found == batch * recurrence * per_position


def test_criss_cross_attention_counts_the_same_as_a_bare_operator():
    class Bare(nn.Module):
        def forward(self, q, k, v):
            return torch.ops.ccsa.criss_cross_forward(q, k, v)[0]

    q, v = torch.zeros(1, 2, 3, 4), torch.zeros(1, 5, 3, 4)
    assert count_flops(Bare(), (q, q, v)) == products(3, 4, 3 + 4 - 1, 2 + 5)


def test_non_local_attention():
    block = NonLocal(8, reduction=2)
    positions, inner = 3 * 5, 4
    attention = products(positions, positions, inner) + products(positions, positions, inner)
    projections = 3 * products(positions, 8, inner) + products(positions, inner, 8)
    assert count_flops(block, torch.zeros(1, 8, 3, 5)) == attention + projections


def test_attention_of_several_heads_and_another_width_of_values():
    class Attention(nn.Module):
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v)

    q, k, v = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 6, 5), torch.zeros(2, 3, 6, 7)
    assert count_flops(Attention(), (q, k, v)) == products(2, 3, 4, 6, 5 + 7)


def test_a_batch_of_added_products():
    class Added(nn.Module):
        def forward(self, x, a, b):
            return torch.baddbmm(x, a, b)

    x, a, b = torch.zeros(2, 3, 5), torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)
    assert count_flops(Added(), (x, a, b)) == products(2, 3, 4, 5)


def test_by_module_and_silent(caplog, recwarn):
    model = nn.Sequential(CrissCross(8, recurrence=1), SqueezeExcitation(8, reduction=4))
    with caplog.at_level(logging.WARNING):
        analysis = flop_analysis(model, torch.zeros(1, 8, 4, 4))
    parts = analysis.by_module()
    assert parts["model.1"] == 2 * 8 * 2
    assert parts["model.0"] + parts["model.1"] == analysis.total()
    assert not caplog.records and not len(recwarn)


def test_the_model_keeps_its_mode_and_its_state():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    model[0].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    count_flops(model, torch.rand(2, 1, 3, 3))
    assert model.training and model[1].training and not model[0].training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_torchs_counter_knows_criss_cross_attention_forward_and_backward():
    q, k, v = (torch.randn(2, c, 4, 6, requires_grad=True) for c in (3, 3, 8))
    with FlopCounterMode(display=False) as counter:
        criss_cross_attention(q, k, v).sum().backward()
    counts = {str(name): n for name, n in counter.get_flop_counts()["Global"].items()}
    pairs = 2 * 24 * 9
    assert counts["ccsa.criss_cross_forward"] == 2 * pairs * (3 + 8)
    assert counts["ccsa.criss_cross_backward"] == 2 * pairs * (3 * 3 + 2 * 8)


def test_norms_and_resizing_count_by_element():
    x = torch.zeros(2, 4, 5, 6)
    assert count_flops(nn.BatchNorm2d(4), x) == 2 * x.numel()
    assert count_flops(nn.BatchNorm2d(4).train().forward, x) == 5 * x.numel()
    assert count_flops(nn.GroupNorm(2, 4), x) == 5 * x.numel()
    assert count_flops(nn.LayerNorm(6), x) == 5 * x.numel()
    assert count_flops(nn.Upsample(scale_factor=2, mode="bilinear"), x) == 4 * 4 * x.numel()
    assert count_flops(nn.AdaptiveAvgPool2d(2), x) == x.numel()


def test_a_training_step_counts_its_backward_pass():
    layer, x = nn.Linear(3, 5), torch.zeros(7, 3, requires_grad=True)
    forward = products(7, 3, 5)
    assert count_flops(lambda: layer(x).sum().backward(), ()) == 3 * forward
    assert count_flops(layer, x) == forward


def test_a_block_at_a_module_counts_into_that_module():
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
    insert_blocks(model, [{"at": "0", "block": "CrissCross", "recurrence": 1}])
    parts = flop_analysis(model, torch.zeros(1, 8, 4, 4)).by_module()
    assert parts["model.0.context"] == count_flops(model[0].context, torch.zeros(1, 8, 4, 4)) > 0
    assert parts["model.0"] == parts["model"] == parts["model.0.context"] + products(16, 8, 8)
