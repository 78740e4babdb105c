"""The faithfulness check of the attention explorer."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from ccsa.ops import criss_cross_weights
from ccsa.report.explorer_check import check_faithfulness, find_region


class Corner(torch.nn.Module):
    """Predicts class 1 at the top left if the pixel at the bottom left is bright, else class 0."""

    def forward(self, inputs):
        image = inputs[0]["image"]
        scores = torch.zeros(2, *image.shape[-2:])
        scores[0] = 1.0
        scores[1, :2, :2] = image[0, -1, 0] / 10
        return [{"sem_seg": scores}]


class Predictor:
    """What the check uses of ccsa.Predictor."""

    class cfg:
        class MODEL:
            PIXEL_MEAN = [10.0]

    clip = None
    model = Corner()


def attention_to_the_column(size):
    """Return the weights of a block whose positions attend to the bottom of their column."""
    query = torch.ones(1, 1, *size)
    key = torch.zeros(1, 1, *size)
    key[..., -1, :] = 20.0
    return [criss_cross_weights(query, key)[0]]


def test_replacing_what_the_prediction_depends_on_lowers_the_score():
    image = torch.full((1, 8, 8), 100.0)
    inputs = {"image": image, "height": 8, "width": 8}
    outputs = Predictor.model([inputs])[0]
    region = find_region(outputs, [], ["ground", "cue"])
    assert region.name == "cue" and region.pixels.sum() == 4
    found = check_faithfulness(Predictor, inputs, region, attention_to_the_column((8, 8)), (8, 8))
    before, after = (torch.tensor([1.0, v]).softmax(0)[1].item() for v in (10.0, 1.0))
    assert found["score"] == pytest.approx(before)
    assert found["attended"] == pytest.approx(after)
    # One pixel in 64 matters, and each draw replaces 4 of them.
    assert found["random"] > after + 0.3
    assert found["ratio"] > 3


def test_the_region_of_a_detector_is_its_best_object():
    found = Instances((10, 10))
    found.pred_boxes = Boxes(torch.tensor([[0.0, 0, 4, 4], [5, 5, 9, 9]]))
    found.scores, found.pred_classes = torch.tensor([0.6, 0.9]), torch.tensor([0, 1])
    region = find_region({"instances": found}, ["a", "b"], [])
    assert region.name == "b" and region.pixels[5:9, 5:9].all() and region.pixels.sum() == 16
    assert region.score({"instances": found}) == pytest.approx(0.9)
    assert region.score({"instances": found[:1]}) == 0.0  # another object
    assert region.score({"instances": found[:0]}) == 0.0


def test_there_is_no_region_without_a_prediction():
    empty = Instances((10, 10))
    empty.scores = torch.zeros(0)
    assert find_region({"instances": empty}, [], []) is None
    assert find_region({}, [], []) is None
