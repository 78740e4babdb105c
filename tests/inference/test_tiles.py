"""Tiles with a detector that finds every object of its tile exactly: the pixels of an image are
the numbers of objects."""

import tracemalloc

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from ccsa.errors import UserError
from ccsa.evaluation.rle import masks_to_rle
from ccsa.inference.tile_masks import BoxMask, TileMasks
from ccsa.inference.tiles import TiledInference


class Finder(nn.Module):
    """Find each object of an image (1, H, W) with the class number % 3.

    Args:
        masks: whether objects have masks.
        smallest: objects with fewer visible pixels are not found.
    """

    def __init__(self, masks=True, smallest=1):
        super().__init__()
        self.masks, self.smallest = masks, smallest
        self.seen = []

    def forward(self, inputs):
        return [self.find(x) for x in inputs]

    def find(self, x):
        image = x["image"][0]
        self.seen.append(tuple(image.shape))
        if tuple(image.shape) != (x["height"], x["width"]):
            image = nn.functional.interpolate(image[None, None], (x["height"], x["width"]))[0, 0]
        numbers, counts = image.unique(return_counts=True)
        found = [n for n, c in zip(numbers, counts, strict=True) if n and c >= self.smallest]
        masks = torch.stack([image == n for n in found]) if found else torch.zeros(0, *image.shape)
        boxes = [(m.nonzero().amin(0), m.nonzero().amax(0) + 1) for m in masks]
        boxes = torch.tensor([[a[1], a[0], b[1], b[0]] for a, b in boxes], dtype=torch.float32)
        instances = Instances(
            tuple(image.shape),
            pred_boxes=Boxes(boxes.reshape(-1, 4)),
            scores=torch.tensor([float(m.sum()) / 1e6 for m in masks]),
            pred_classes=torch.tensor([int(n) % 3 for n in found], dtype=torch.int64),
        )
        if self.masks:
            instances.pred_masks = masks.bool()
        return {"instances": instances}


def predict(image, size, overlap, model=None, **keywords):
    tiled = TiledInference(model or Finder(), size, overlap, **keywords)
    return tiled([{"image": torch.as_tensor(image, dtype=torch.float32)[None]}])[0]["instances"]


def scene(seed, height=90, width=120, count=40, longest=50):
    """Return an image with objects that do not touch, numbered from 1."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width), int)
    number = 0
    for _ in range(count):
        h, w = random.integers(1, longest, 2)
        h, w = (h, max(1, w // 6)) if random.integers(2) else (max(1, h // 6), w)
        y, x = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
        if not image[max(0, y - 1) : y + h + 1, max(0, x - 1) : x + w + 1].any():
            number += 1
            image[y : y + h, x : x + w] = number
    return image


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("size", "overlap"), [((40, 40), (10, 10)), ((33, 57), (5, 20)), ((50, 30), (8, 15))]
)
def test_every_object_is_found_once_with_all_its_pixels(seed, size, overlap):
    image = scene(seed)
    found = predict(image, size, overlap)
    masks = np.asarray(found.pred_masks)
    numbers = sorted(int(image[mask].max()) for mask in masks)
    assert numbers == list(range(1, image.max() + 1)) and len(numbers) > 10
    for mask, label, box in zip(masks, found.pred_classes, found.pred_boxes, strict=True):
        number = image[mask].max()
        assert np.array_equal(mask, image == number) and label == number % 3
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_boxes_are_merged_if_there_are_no_masks():
    image = np.zeros((60, 100), int)
    image[20:30, 5:95] = 1  # in all tiles of a row
    image[45:55, 33:37] = 2  # complete in two tiles
    found = predict(image, (60, 40), (20, 10), Finder(masks=False))
    assert not found.has("pred_masks")
    assert sorted(found.pred_boxes.tensor.tolist()) == [[5, 20, 95, 30], [33, 45, 37, 55]]


def test_neighbors_that_are_both_cut_stay_apart():
    image = np.zeros((40, 100), int)
    image[10:14, 20:80] = 1
    image[15:19, 20:80] = 4  # the same class, one pixel away
    found = predict(image, (40, 60), (10, 20))
    assert sorted(m.sum().item() for m in found.pred_masks) == [240, 240]


def test_a_sliver_that_looks_like_another_class_gives_way_to_the_whole():
    class Confused(Finder):
        """Finds another class if it sees few pixels."""

        def find(self, x):
            output = super().find(x)
            areas = output["instances"].pred_masks.sum((1, 2))
            output["instances"].pred_classes[areas < 40] = 7
            return output

    image = np.zeros((40, 100), int)
    image[10:20, 50:60] = 1
    found = predict(image, (40, 55), (10, 20), Confused())
    assert found.pred_classes.tolist() == [1] and found.pred_masks[0].sum() == 100


def test_a_small_false_object_does_not_replace_a_large_one():
    class Doubtful(Finder):
        """Finds a second, small object inside every large one."""

        def find(self, x):
            output = super().find(x)["instances"]
            small = output[output.pred_masks.sum((1, 2)) > 500]
            small.pred_masks = small.pred_masks.clone()
            small.pred_masks[:, :14] = False
            small.pred_masks[:, 17:] = False
            small.pred_masks[..., :24] = small.pred_masks[..., 27:] = False
            small.pred_boxes = Boxes(torch.tensor([[24.0, 14, 27, 17]] * len(small)))
            return {"instances": Instances.cat([output, small])}

    image = np.zeros((40, 100), int)
    image[5:35, 5:95] = 1
    found = predict(image, (40, 60), (10, 20), Doubtful())
    assert max(m.sum().item() for m in found.pred_masks) == 30 * 90


def test_an_image_of_one_tile_is_what_the_model_returns():
    image, model = scene(3), Finder()
    found = predict(image, (200, 200), (50, 50), model)
    assert model.seen == [(90, 120)] and len(found) == image.max()


def test_outputs_of_another_size():
    image = np.zeros((40, 100), int)
    image[10:20, 20:80] = 1
    tiled = TiledInference(Finder(), (40, 60), (10, 20))
    x = {"image": torch.as_tensor(image, dtype=torch.float32)[None], "height": 80, "width": 150}
    found = tiled([x])[0]["instances"]
    assert found.image_size == (80, 150) and found.pred_masks.shape == (1, 80, 150)
    assert found.pred_boxes.tensor.tolist() == [[30, 20, 120, 40]]
    assert found.pred_masks[0].sum() == 20 * 90


def test_the_limit_keeps_the_highest_scores(logged):
    image = scene(1)
    found = predict(image, (40, 40), (10, 10), limit=3)
    areas = sorted(np.bincount(image.ravel())[1:])[-3:]
    assert sorted(m.sum().item() for m in found.pred_masks) == areas
    assert "TEST.DETECTIONS_PER_IMAGE is 3; raise it" in logged.text


def test_nothing_found():
    found = predict(np.zeros((50, 50), int), (20, 20), (5, 5))
    assert len(found) == 0 and found.pred_boxes.tensor.shape == (0, 4)
    assert masks_to_rle(found.pred_masks) == [] and np.asarray(found.pred_masks).shape == (
        0,
        50,
        50,
    )


@pytest.mark.parametrize(
    ("size", "overlap", "reason"),
    [((4, 4), (0, 2), "at least 1"), ((4, 4), (4, 2), "smaller than SIZE")],
)
def test_wrong_tiles(size, overlap, reason):
    with pytest.raises(UserError, match=reason):
        TiledInference(Finder(), size, overlap)


@pytest.mark.parametrize("seed", range(6))
def test_masks_behave_like_a_tensor(seed):
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 40, 2)
    full = random.random((5, height, width)) < random.choice([0.02, 0.5, 0.99])
    full[1] = False
    masks = TileMasks([BoxMask.of(mask) for mask in full], (int(height), int(width)))
    tensor = torch.as_tensor(full)
    assert len(masks) == 5 and masks.shape == full.shape
    assert np.array_equal(np.asarray(masks), full)
    assert masks_to_rle(masks) == masks_to_rle(tensor)
    assert torch.equal(masks[torch.tensor(3)], tensor[3]) and torch.equal(masks[-1], tensor[-1])
    for index in (
        torch.tensor([4, 0]),
        torch.tensor([True, False, True, True, False]),
        slice(1, 3),
    ):
        assert np.array_equal(np.asarray(masks[index]), full[index])
    assert len(masks[torch.zeros(5, dtype=torch.bool)]) == len(masks[torch.tensor([]).long()]) == 0
    union = BoxMask.of(full[0]).union(BoxMask.of(full[2]))
    assert union.area == (full[0] | full[2]).sum()
    with pytest.raises(IndexError):
        masks[5]


def test_the_memory_is_that_of_the_boxes_not_of_the_image():
    size = (6000, 8000)
    pixels = np.ones((300, 300), bool)
    tracemalloc.start()
    masks = TileMasks([BoxMask.of(pixels, 60 * i, 50 * i) for i in range(100)], size)
    encoded = masks_to_rle(masks)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(encoded) == 100 and peak < 20e6  # as a tensor they would need 4.8 GB
