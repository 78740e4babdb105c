"""The papers' GFLOPs come out, by our own blocks."""

import pytest

from experiments.ccnet_costs import LINES, gflops


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_gflops_are_the_papers_to_one_percent(line):
    assert gflops(line.build()) == pytest.approx(line.flops, rel=0.01)
