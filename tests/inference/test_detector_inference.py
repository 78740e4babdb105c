"""Test-time augmentation of detectors."""

import argparse

import pytest
import torch
import yaml
from support.tiny_models import MASK_RCNN

from ccsa.engine.setup import setup_cfg
from ccsa.engine.trainer import Trainer
from ccsa.inference import build_inference


@pytest.fixture
def detector(tmp_path):
    """Return a function that returns a model, the same model with augmentation, and an input."""

    def make(*options):
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(MASK_RCNN))
        words = [
            *("TEST.AUG.ENABLED", "True", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
            *("MODEL.ROI_HEADS.NMS_THRESH_TEST", "0.5", *options),
        ]
        args = argparse.Namespace(config_file=str(tmp_path / "tiny.yaml"), opts=words)
        cfg = setup_cfg(args)
        torch.manual_seed(0)
        model = Trainer.build_model(cfg).eval()
        image = torch.randint(0, 256, (3, 128, 160)).float()
        return model, build_inference(cfg, model), {"image": image, "height": 64, "width": 80}

    return make


@torch.no_grad()
def test_one_view_of_the_same_size_is_the_model_itself(detector):
    model, augmented, x = detector("TEST.AUG.MIN_SIZES", "(128,)", "TEST.AUG.FLIP", "False")
    expected, found = (call([x])[0]["instances"] for call in (model, augmented))
    assert len(expected) == len(found) == 5 and found.image_size == (64, 80)
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(
        found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-3, rtol=0
    )
    assert (found.pred_masks != expected.pred_masks).float().mean() < 0.01


@torch.no_grad()
def test_views_of_a_mirrored_image_give_mirrored_boxes(detector):
    _, augmented, x = detector("TEST.AUG.MIN_SIZES", "(96, 128)")
    boxes = augmented([x])[0]["instances"].pred_boxes.tensor
    mirrored = augmented([{**x, "image": x["image"].flip(2)}])[0]["instances"]
    back = mirrored.pred_boxes.tensor[:, [2, 1, 0, 3]]
    back[:, 0::2] = 80 - back[:, 0::2]
    torch.testing.assert_close(back, boxes, atol=0.1, rtol=0)


def test_without_the_switch_the_model_stays_as_it_is(detector):
    model, same, _ = detector("TEST.AUG.ENABLED", "False")
    assert same is model
