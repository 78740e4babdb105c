"""The peers of the benchmarks compute the same as ours, so that the comparison is fair."""

import pytest
import torch
from support.criss_cross_cases import operands

from benchmarks import peers
from ccsa.blocks import CrissCross
from ccsa.ops import criss_cross_attention

TWO_AXES = [(5, 7), (1, 4), (4, 1)]


@pytest.mark.parametrize("size", [*TWO_AXES, (3, 4, 5)], ids=str)
def test_the_official_algorithm_is_criss_cross_attention(size):
    qkv = operands(size)
    expected = criss_cross_attention(*qkv, backend="reference")
    torch.testing.assert_close(peers.official_attention(*qkv), expected)


@pytest.mark.parametrize("size", TWO_AXES, ids=str)
def test_mmcv_is_criss_cross_attention(size):
    qkv = operands(size)
    expected = criss_cross_attention(*qkv, backend="reference")
    torch.testing.assert_close(peers.mmcv_attention(*qkv), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_peers_run_in_half_precision(dtype):
    qkv = operands((5, 7), dtype=dtype)
    block = CrissCross(16, recurrence=2).to(dtype)
    torch.nn.init.constant_(block.gamma, 0.7)
    x = torch.randn(2, 16, 5, 7).to(dtype)
    close = {"rtol": 0.05, "atol": 0.05}
    for attention in (peers.mmcv_attention, peers.official_attention):
        torch.testing.assert_close(attention(*qkv), criss_cross_attention(*qkv), **close)
    for peer in (peers.MmcvBlock, peers.OfficialBlock):
        torch.testing.assert_close(peer(block)(x), block(x), **close)


@pytest.mark.parametrize("peer", [peers.MmcvBlock, peers.OfficialBlock])
def test_blocks_have_the_weights_of_ours(peer):
    block = CrissCross(16, recurrence=2).double()
    torch.nn.init.constant_(block.gamma, 0.7)
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    y = peer(block).double()(x)
    torch.testing.assert_close(y, block(x))
    assert not torch.allclose(y, x, atol=1e-2)


def test_non_local_is_attention_over_all_positions():
    q, k, v = operands((3, 4))
    expected = torch.zeros_like(v)
    flat = [x.flatten(2) for x in (q, k, v)]
    for i in range(12):
        weights = (flat[0][:, :, i, None] * flat[1]).sum(1).softmax(-1)
        expected.flatten(2)[:, :, i] = (weights[:, None] * flat[2]).sum(-1)
    torch.testing.assert_close(peers.non_local_attention(q, k, v), expected)


def test_without_mmcv_the_message_has_the_command(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from ccsa.errors import UserError

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", absent)
    with pytest.raises(UserError, match=r"pip install mmcv-lite==2\.1\.0"):
        peers.mmcv_class.__wrapped__()  # apart from its cache
