"""The deletion test, on scores that depend on known positions."""

import pytest
import torch

from ccsa.analysis.faithfulness import (
    FLOOR,
    deletion,
    most_attended,
    random_positions,
    replaced,
)
from ccsa.errors import UserError


@pytest.mark.parametrize("share, count", [(0.05, 13), (1.0, 256), (1e-9, 1)])
def test_the_share_is_rounded_up(share, count):
    attention = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    mask = most_attended(attention, share)
    assert int(mask.sum()) == count
    assert attention[mask].min() >= attention[~mask].max() if count < 256 else mask.all()


@pytest.mark.parametrize("share", [0, -1, 1.5, float("nan")])
def test_a_share_outside_of_its_range_is_rejected(share):
    with pytest.raises(UserError, match="share"):
        most_attended(torch.rand(2, 2), share)


def test_random_masks_have_the_same_number_of_positions():
    mask = torch.zeros(5, 8, dtype=torch.bool)
    mask[0, :3] = True
    drawn = random_positions(mask, 20)
    assert [int(d.sum()) for d in drawn] == [3] * 20
    assert any(not torch.equal(drawn[0], d) for d in drawn)
    assert all(torch.equal(a, b) for a, b in zip(drawn, random_positions(mask, 20), strict=True))


def test_pixels_of_masked_positions_are_replaced():
    mask = torch.tensor([[True, False], [False, False]])
    image, fill = torch.zeros(2, 4, 6), torch.tensor([5.0, 7.0])
    changed = replaced(image, mask, fill)
    assert (changed[:, :2, :3] == fill[:, None, None]).all()
    assert changed.sum() == 6 * (5 + 7) and not image.any()
    # The feature map covers 8x8 pixels, so that a position covers 4x4 of them.
    padded = replaced(image[None], mask, fill, (8, 8))
    assert padded.shape == (1, 2, 4, 6) and padded.sum() == 16 * (5 + 7)


def test_attended_positions_matter_more_than_random_ones():
    important = most_attended(torch.arange(100.0).reshape(10, 10), 0.05)

    def score(mask):
        return 0.9 if mask is None else 0.9 - 0.1 * int((mask & important).sum())

    found = deletion(score, important)
    expected = sum(int((r & important).sum()) for r in random_positions(important, 20)) / 20 * 0.1
    assert found.attended_drop == pytest.approx(0.5)
    assert found.random_drop == pytest.approx(expected)
    assert found.ratio == pytest.approx(0.5 / max(expected, FLOOR))


def test_the_ratio_has_a_floor():
    assert deletion(lambda m: 0.5, torch.ones(2, 2).bool()).ratio == 0
    attended = torch.eye(2).bool()
    found = deletion(lambda m: 0.2 if m is not None and m is attended else 0.7, attended)
    assert found.ratio == pytest.approx(0.5 / FLOOR)
