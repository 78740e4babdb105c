"""The masks of an evaluation are encoded one at a time, and are those of Detectron2."""

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, ROIMasks
from support.tiny_models import MASK_RCNN

from ccsa import add_ccsa_config
from ccsa.evaluation.instances import _to_coco
from ccsa.evaluation.rle import decode_box, masks_to_rle, run_lengths
from ccsa.inference.detector import DetectorInference, PastedMasks, with_pasted_masks


def tiny_detector():
    """Return a detector that detects with random weights, in evaluation mode."""
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.merge_from_other_cfg(CfgNode(MASK_RCNN))
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(0)
    return build_model(cfg).eval()


def found(count, size, seed=0):
    """Return random mask probabilities (N, 28, 28) and boxes (N, 4)."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([size[1], size[0]])
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    return torch.rand(count, 28, 28, generator=generator), boxes


def test_pasted_masks_are_those_of_detectron2():
    size = (70, 90)
    probabilities, boxes = found(9, size)
    expected = paste_masks_in_image(probabilities, boxes, size)
    masks = PastedMasks(probabilities, boxes, size)
    assert len(masks) == 9 and torch.equal(torch.stack(list(masks)), expected)
    assert torch.equal(masks[3], expected[3])
    assert torch.equal(masks[-1], expected[-1])
    kept = torch.tensor([True, False] * 4 + [True])
    assert torch.equal(torch.stack(list(masks[kept])), expected[kept])
    assert torch.equal(torch.stack(list(masks.to("cpu")[2:4])), expected[2:4])
    assert list(masks[:0]) == []


def test_the_detections_are_those_of_detectron2():
    model = tiny_detector()
    image = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0)) * 255
    inputs = [{"image": image, "height": 150, "width": 200}, {"image": image[:, :64]}]
    wrapped = with_pasted_masks(model)
    assert isinstance(wrapped, DetectorInference) and not wrapped.training
    with torch.no_grad():
        expected, results = model(inputs), wrapped(inputs)
    for one, other in zip(expected, results, strict=True):
        one, other = one["instances"], other["instances"]
        assert len(one) > 0 and one.image_size == other.image_size
        for name in ("scores", "pred_classes"):
            assert torch.equal(one.get(name), other.get(name))
        assert torch.equal(one.pred_boxes.tensor, other.pred_boxes.tensor)
        assert torch.equal(one.pred_masks, torch.stack(list(other.pred_masks)))
        assert _to_coco(one, 1) == _to_coco(other, 1)


def test_masks_as_roi_masks_are_pasted_and_other_models_left_alone():
    model = torch.nn.Linear(1, 1)
    assert with_pasted_masks(model) is model
    detector = tiny_detector()
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    plain = detector.inference

    def in_boxes(*args, **keys):
        outputs = plain(*args, **keys)
        for output in outputs:
            output.pred_masks = ROIMasks(output.pred_masks[:, 0])
        return outputs

    with torch.no_grad():
        pasted = DetectorInference(detector)([{"image": image}])[0]["instances"].pred_masks
        expected = torch.stack(list(pasted))
        detector.inference = in_boxes
        same = DetectorInference(detector)([{"image": image}])[0]["instances"].pred_masks
    assert torch.equal(torch.stack(list(same)), expected)


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_inside_its_box_is_the_mask(seed):
    rng = np.random.default_rng(seed)
    masks = [rng.random((37, 53)) < p for p in (0.5, 0.01, 0.999)]
    masks.append(np.zeros((37, 53), bool))
    masks.append(np.ones((37, 53), bool))
    for mask, rle in zip(masks, masks_to_rle(torch.from_numpy(np.stack(masks))), strict=True):
        lengths = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=2, append=2)))
        counts = [*([0] if mask[0, 0] else []), *lengths]
        assert run_lengths(rle["counts"].encode()).tolist() == counts
        assert np.array_equal(coco_mask.decode(rle), mask)
        box = decode_box(rle)
        whole = np.zeros(mask.shape, np.uint8)
        height, width = box.pixels.shape
        whole[box.top : box.top + height, box.left : box.left + width] = box.pixels
        assert np.array_equal(whole, mask)
        edges = [box.pixels.any(axis)[[0, -1]] for axis in (0, 1) if mask.any()]
        assert np.all(edges)


def peak_of(call):
    """Return the bytes by which the memory of this process rises above its size before a call."""

    def status(name):
        with open("/proc/self/status") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak becomes the present size
    except OSError:
        pytest.skip("this system does not reset the peak of memory")
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def test_memory_does_not_grow_with_objects_times_pixels():
    size = (3000, 4000)
    probabilities, boxes = found(24, size)
    boxes[:, 2:] = torch.minimum(boxes[:, 2:], boxes[:, :2] + 400)
    instances = Instances(size)
    instances.pred_boxes, instances.scores = Boxes(boxes), torch.rand(24)
    instances.pred_classes = torch.zeros(24, dtype=torch.long)
    instances.pred_masks = PastedMasks(probabilities, boxes, size)
    results = []
    peak = peak_of(lambda: results.extend(_to_coco(instances, 1)))
    assert len(results) == 24 and sum(coco_mask.area(r["segmentation"]) for r in results) > 0
    assert peak < 8 * size[0] * size[1], f"{peak / 2**20:.0f} MiB"  # 24 masks have 24 of these
