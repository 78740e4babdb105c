"""Test-time augmentation with models that mark position, side and scale."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from torch import nn

from ccsa.config import add_ccsa_config
from ccsa.errors import UserError
from ccsa.inference.build import build_semantic_inference
from ccsa.inference.sliding_window import SlidingWindow
from ccsa.inference.test_time_augmentation import SemanticTTA, rescale


class Resized(nn.Module):
    """Return the image as scores at the size that the input requests, as Detectron2's models do."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, batched_inputs):
        (x,) = batched_inputs
        self.seen.append(tuple(x["image"].shape[-2:]))
        size = (x["height"], x["width"])
        scores = F.interpolate(x["image"][None].float(), size, mode="bilinear")[0]
        return [{"sem_seg": scores}]


class Side(nn.Module):
    """Predict class 1 on the left and class 2 on the right of any image: a model that confuses the
    sides of a flipped person unless classes are swapped back."""

    def forward(self, batched_inputs):
        (x,) = batched_inputs
        scores = torch.zeros(3, x["height"], x["width"])
        middle = (x["width"] + 1) // 2
        scores[1, :, :middle] = 1
        scores[2, :, middle:] = 1
        return [{"sem_seg": scores}]


def ramp(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, rows * 100 + columns]).float()


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (1, 5), (5, 1)])
def test_a_mirrored_image_comes_back_the_right_way_round(size):
    image = ramp(*size)
    found = SemanticTTA(Resized(), flip=True)([{"image": image}])[0]["sem_seg"]
    assert torch.equal(found, image)


def test_left_and_right_are_swapped_back():
    x = [{"image": torch.zeros(3, 4, 6)}]
    wanted = Side()([{**x[0], "height": 4, "width": 6}])[0]["sem_seg"]
    swapped = SemanticTTA(Side(), flip=True, flip_pairs=[(1, 2)])(x)[0]["sem_seg"]
    assert torch.equal(swapped, wanted)
    mixed = SemanticTTA(Side(), flip=True)(x)[0]["sem_seg"]
    assert torch.equal(mixed[1:], torch.full((2, 4, 6), 0.5))


def test_scales_average_constants_exactly():
    image = torch.full((3, 11, 7), 0.1)

    class Constant(nn.Module):
        def forward(self, batched_inputs):
            (x,) = batched_inputs
            return [{"sem_seg": torch.full((3, x["height"], x["width"]), 0.1)}]

    scales = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    found = SemanticTTA(Constant(), scales)([{"image": image}])[0]["sem_seg"]
    assert torch.equal(found, image)
    found = SemanticTTA(Resized(), scales)([{"image": image}])[0]["sem_seg"]
    torch.testing.assert_close(found, image, rtol=0, atol=1e-7)


def test_every_view_counts_once_at_the_output_size():
    model = Resized()
    x = {"image": ramp(8, 12), "height": 16, "width": 20}
    found = SemanticTTA(model, [0.5, 1.0, 1.5], flip=True)([x])[0]["sem_seg"]
    assert model.seen == [(4, 6), (4, 6), (8, 12), (8, 12), (12, 18), (12, 18)]
    views = []
    for scale in (0.5, 1.0, 1.5):
        for flip in (False, True):
            image = rescale(x["image"], scale)
            image = image.flip(-1) if flip else image
            y = F.interpolate(image[None], (16, 20), mode="bilinear")[0]
            views.append(y.flip(-1) if flip else y)
    torch.testing.assert_close(found, torch.stack(views).mean(0))


def test_softmax_is_averaged_instead():
    x = [{"image": torch.randn(3, 4, 5)}]
    found = SemanticTTA(Resized(), average="softmax")(x)[0]["sem_seg"]
    torch.testing.assert_close(found, x[0]["image"].softmax(0))


def test_bytes_are_rescaled_as_numbers():
    image = torch.tensor([[[0, 255], [0, 255]]], dtype=torch.uint8)
    assert rescale(image, 1.0) is image
    assert rescale(image, 0.5).tolist() == [[[127.5]]]
    assert rescale(torch.zeros(3, 3, 100), 0.1).shape == (3, 1, 10)


def config(**keys):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.DATASETS.TEST = ()
    for key, value in keys.items():
        cfg.merge_from_list([f"TEST.{key.replace('__', '.')}", value])
    return cfg


def test_nothing_enabled_is_the_model_itself():
    model = Resized()
    assert build_semantic_inference(config(), model) is model


def test_windows_of_every_scale():
    model = Resized()
    cfg = config(
        TILES__ENABLED=True,
        TILES__SIZE=[6, 6],
        TILES__OVERLAP=[2, 2],
        SEM_SEG_AUG__ENABLED=True,
        SEM_SEG_AUG__SCALES=[1.0, 2.0],
        SEM_SEG_AVERAGE="softmax",
    )
    wrapped = build_semantic_inference(cfg, model)
    assert isinstance(wrapped.model, SlidingWindow)
    image = torch.randn(3, 6, 10)
    found = wrapped([{"image": image}])[0]["sem_seg"]
    assert set(model.seen) == {(6, 6)}
    assert len(model.seen) == 2 * (1 * 2 + 3 * 5)
    torch.testing.assert_close(found.sum(0), torch.ones(6, 10))  # probabilities, averaged once
    doubled = F.interpolate(rescale(image, 2.0).softmax(0)[None], (6, 10), mode="bilinear")[0]
    torch.testing.assert_close(found, (image.softmax(0) + doubled) / 2)


def test_flip_pairs_come_from_the_test_set():
    name = "tta_test_people"
    MetadataCatalog.get(name).set(flip_pairs=[(1, 2)])
    try:
        cfg = config(SEM_SEG_AUG__ENABLED=True, SEM_SEG_AUG__SCALES=[1.0])
        cfg.DATASETS.TEST = (name,)
        assert build_semantic_inference(cfg, Side()).flip_pairs == [(1, 2)]
        cfg.DATASETS.TEST = (name, "tta_test_other")
        with pytest.raises(UserError, match="different flip_pairs"):
            build_semantic_inference(cfg, Side())
    finally:
        MetadataCatalog.pop(name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scales": []}, "one or more"),
        ({"scales": [0.0]}, "above 0"),
        ({"flip_pairs": [(1, 2), (2, 3)]}, "pairs of different classes"),
        ({"flip_pairs": [(1,)]}, "pairs of different classes"),
        ({"average": "votes"}, "logits, softmax"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(UserError, match=message):
        SemanticTTA(Resized(), **wrong)
