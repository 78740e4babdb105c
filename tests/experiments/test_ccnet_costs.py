"""The GFLOPs of this project's blocks agree with those that the papers report."""

import pytest

from experiments.ccnet_costs import PUBLISHED_COSTS, gflops


@pytest.mark.parametrize("published", PUBLISHED_COSTS, ids=lambda published: published.name)
def test_gflops_are_the_papers_to_one_percent(published):
    assert gflops(published.build()) == pytest.approx(published.gflops, rel=0.01)
