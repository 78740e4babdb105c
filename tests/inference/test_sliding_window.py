"""Sliding windows with models that mark the location of each window."""

import itertools

import pytest
import torch
from torch import nn

from ccsa.data.tile_grid import window_starts
from ccsa.errors import UserError
from ccsa.inference.sliding_window import SlidingWindow


class Marker(nn.Module):
    """Return the image as scores, and record the sizes of all images."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, batched_inputs):
        (x,) = batched_inputs
        assert (x["height"], x["width"]) == tuple(x["image"].shape[-2:])
        self.seen.append(tuple(x["image"].shape[-2:]))
        return [{"sem_seg": x["image"].float()}]


class Counter(nn.Module):
    """Return the score k everywhere in window k."""

    def __init__(self):
        super().__init__()
        self.calls = itertools.count()

    def forward(self, batched_inputs):
        return [
            {"sem_seg": torch.full((2, *batched_inputs[0]["image"].shape[-2:]), next(self.calls))}
        ]


def windows_of(model, crop, stride, average="logits"):
    """Return a sliding window with a step instead of an overlap."""
    overlap = [size - step for size, step in zip(crop, stride, strict=True)]
    return SlidingWindow(model, crop, overlap, average)


def positions(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, rows * 1000 + columns])


@pytest.mark.parametrize(
    ("size", "crop", "stride", "starts"),
    [
        (10, 4, 3, [0, 3, 6]),
        (11, 4, 3, [0, 3, 6, 7]),
        (4, 4, 3, [0]),
        (3, 4, 3, [0]),
        (5, 4, 3, [0, 1]),
        (1024, 769, 513, [0, 255]),
        (2048, 769, 513, [0, 513, 1026, 1279]),
    ],
)
def test_window_starts(size, crop, stride, starts):
    assert window_starts(size, crop, stride) == starts


@pytest.mark.parametrize("size", [(10, 13), (17, 31), (8, 8), (5, 20), (20, 3), (1, 1)])
@pytest.mark.parametrize(("crop", "stride"), [((8, 8), (5, 5)), ((8, 6), (8, 3))])
def test_positions_come_back_with_no_seam(size, crop, stride):
    model = Marker()
    image = positions(*size)
    result = windows_of(model, crop, stride)([{"image": image}])[0]["sem_seg"]
    assert torch.equal(result, image.float())
    window = tuple(min(s, c) for s, c in zip(size, crop, strict=True))
    assert set(model.seen) == {window}


def test_overlaps_are_averaged():
    size, crop, stride = (7, 9), (4, 5), (2, 3)
    found = windows_of(Counter(), crop, stride)([{"image": torch.zeros(3, *size)}])[0]["sem_seg"]
    windows = list(itertools.product([0, 2, 3], [0, 3, 4]))
    for i, j in itertools.product(range(7), range(9)):
        over = [k for k, (y, x) in enumerate(windows) if y <= i < y + 4 and x <= j < x + 5]
        assert found[1, i, j].item() == pytest.approx(sum(over) / len(over))


def test_softmax_is_averaged_instead():
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.sign = 1

        def forward(self, batched_inputs):
            self.sign = -self.sign
            height, width = batched_inputs[0]["image"].shape[-2:]
            scores = torch.tensor([2.0, -1.0]) * self.sign
            return [{"sem_seg": scores[:, None, None].expand(2, height, width)}]

    image = {"image": torch.zeros(3, 2, 3)}
    found = windows_of(Scores(), (2, 2), (2, 1), "softmax")([image])[0]["sem_seg"]
    p = torch.sigmoid(torch.tensor(3.0))
    torch.testing.assert_close(found[0, 0], torch.tensor([1 - p, 0.5, p]))


def test_output_size_and_batch():
    inputs = [
        {"image": positions(6, 6), "height": 12, "width": 18},
        {"image": positions(9, 5)},
    ]
    found = SlidingWindow(Marker(), (4, 4), (2, 2))(inputs)
    assert [r["sem_seg"].shape for r in found] == [(3, 12, 18), (3, 9, 5)]
    wanted = nn.functional.interpolate(positions(6, 6)[None].float(), (12, 18), mode="bilinear")[0]
    torch.testing.assert_close(found[0]["sem_seg"], wanted)


@pytest.mark.parametrize(
    ("size", "overlap", "average", "message"),
    [
        ((4, 4), (4, 3), "logits", "must be smaller than SIZE"),
        ((4,), (2, 2), "logits", r"SIZE must be \[height, width\]"),
        ((4, 0), (2, 0), "logits", "SIZE must be"),
        ((4, 4), (-1, 0), "logits", "OVERLAP must be"),
        ((4, 4), (0, 0), "votes", "logits, softmax"),
    ],
)
def test_wrong_settings(size, overlap, average, message):
    with pytest.raises(UserError, match=message):
        SlidingWindow(Marker(), size, overlap, average)


def test_a_detector_is_refused():
    class Detector(nn.Module):
        def forward(self, batched_inputs):
            return [{"instances": None}]

    with pytest.raises(UserError, match="'sem_seg' output, but this one gives instances"):
        SlidingWindow(Detector(), (4, 4), (0, 0))([{"image": torch.zeros(3, 4, 4)}])
