"""Does the prediction depend on the positions that a block attends to? A check for one image.

The region is the object with the highest score or, of a model that classifies pixels, the smallest
predicted class that covers at least 1 % of them. The attention of the block, composed over all
applications, is averaged over the region. The 5 % most attended positions of the input are replaced
by the pixel mean of the model, and in comparison random 5 % (:mod:`ccsa.analysis.faithfulness`).

Dimensions: S = (h, w) of a feature map, (H, W) of the prediction in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.structures import pairwise_iou
from torch import Tensor

from ccsa.analysis import attended_by
from ccsa.analysis.faithfulness import deletion, most_attended, replaced
from ccsa.inference.predictor import evaluation_mode
from ccsa.prediction import Predictor

SHARE, DRAWS = 0.05, 20
LEAST_AREA = 0.01  # of the image, for a predicted class
SAME_OBJECT = 0.5  # IoU of boxes

Outputs = dict[str, Any]


@dataclass(frozen=True)
class Region:
    """A part of the image whose prediction is examined.

    Attributes:
        name: what was predicted there.
        pixels: a mask (H, W).
        score: returns the score of the prediction in other outputs, from 0 to 1.
    """

    name: str
    pixels: Tensor
    score: Callable[[Outputs], float]


def find_region(outputs: Outputs, things: list[str], stuff: list[str]) -> Region | None:
    """Return the region to examine, or None if nothing suitable was predicted.

    Args:
        outputs: of the model for one image, under Detectron2's names, on the CPU.
        things, stuff: the names of the classes of objects and of pixels.
    """
    if "instances" in outputs:
        return _best_object(outputs["instances"], things) if len(outputs["instances"]) else None
    if "sem_seg" not in outputs:
        return None
    classes = outputs["sem_seg"].argmax(0)
    counts = torch.bincount(classes.flatten(), minlength=len(outputs["sem_seg"]))
    large = [c for c, n in enumerate(counts.tolist()) if n >= LEAST_AREA * classes.numel()]
    label = min(large, key=lambda c: int(counts[c]))
    pixels = classes == label

    def score(others: Outputs) -> float:
        return float(others["sem_seg"].softmax(0)[label][pixels].mean())

    return Region(stuff[label] if label < len(stuff) else f"class {label}", pixels, score)


def _best_object(instances: Any, things: list[str]) -> Region:
    best = instances[int(instances.scores.argmax())]
    label = int(best.pred_classes)
    box = best.pred_boxes
    if best.has("pred_masks") and best.pred_masks.any():
        pixels = best.pred_masks[0]
    else:
        pixels = torch.zeros(instances.image_size, dtype=torch.bool)
        left, top, right, bottom = box.tensor[0].round().int().tolist()
        pixels[top : max(bottom, top + 1), left : max(right, left + 1)] = True

    def score(others: Outputs) -> float:
        found = others["instances"]
        overlap = pairwise_iou(box, found.pred_boxes)[0] if len(found) else torch.zeros(0)
        same = (found.pred_classes == label) & (overlap >= SAME_OBJECT)
        return float(found.scores[same].max()) if same.any() else 0.0

    return Region(things[label] if label < len(things) else f"class {label}", pixels, score)


def check_faithfulness(
    predictor: Predictor,
    inputs: Outputs,
    region: Region,
    weights: Sequence[Tensor],
    covered: tuple[int, int],
) -> dict[str, Any]:
    """Return the scores before and after positions of the input were replaced, ready for JSON.

    Args:
        predictor: the model, which runs on the whole image.
        inputs: its input, see :meth:`ccsa.Predictor.prepare`.
        region: what is examined, see :func:`find_region`.
        weights: the attention of one block for ``inputs``, of each application: (h, w, h + w), or
            (T, h, w, T + h + w) of a clip, of which all frames are examined.
        covered: height and width in pixels of the padded input, which the feature map covers.
    """
    image = inputs["image"]
    size = weights[0].shape[:-1]
    query = torch.zeros(size)
    frame = query if predictor.clip is None else query[predictor.clip.labelled]
    frame += _at_positions(region.pixels, image.shape[-2:], covered, (size[-2], size[-1]))
    attention = attended_by([each[None] for each in weights], query[None] / query.sum())[0]
    fill = torch.tensor(predictor.cfg.MODEL.PIXEL_MEAN)
    model = predictor.model

    def score(mask: Tensor | None) -> float:
        changed = image if mask is None else replaced(image, mask, fill, covered)
        with torch.no_grad(), evaluation_mode(model):
            (outputs,) = model([{**inputs, "image": changed}])
        return region.score(on_cpu(outputs))

    found = deletion(score, most_attended(attention, SHARE), DRAWS)
    return {
        "region": region.name,
        "pixels": int(region.pixels.sum()),
        "score": found.score,
        "attended": found.attended,
        "random": sum(found.random) / DRAWS,
        "ratio": found.ratio,
    }


def on_cpu(outputs: Outputs) -> Outputs:
    """Return the outputs that regions use, on the CPU."""
    return {key: outputs[key].to("cpu") for key in ("instances", "sem_seg") if key in outputs}


def _at_positions(
    pixels: Tensor, image: tuple[int, int], covered: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return the share (h, w) of each position that a mask (H, W) of the prediction covers."""
    resized = torch.nn.functional.interpolate(
        pixels[None, None].float(), tuple(image), mode="nearest-exact"
    )
    padding = (0, covered[1] - image[1], 0, covered[0] - image[0])
    padded = torch.nn.functional.pad(resized, padding)
    return torch.nn.functional.adaptive_avg_pool2d(padded, size)[0, 0]
