"""Detectors whose masks are pasted into the image one at a time.

Detectron2 pastes all masks of an image at once. For 100 objects in 3,000 x 4,000 pixels, they take
1.2 GB, although an evaluator only needs one at a time.
"""

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances, ROIMasks
from torch import Tensor, nn

_CHUNK = 2**26  # pixels of the masks that are pasted at once on a GPU; on a CPU it is one mask
_FIELD = "mask_probabilities"


class PastedMasks:
    """The masks of an image, of which each is pasted when it is needed.

    It is used like a boolean tensor of shape (N, H, W): it has a length, yields masks (H, W), and
    is indexed by a number, a slice, or a tensor of indices or booleans.

    Args:
        probabilities: (N, M, M), inside the boxes.
        boxes: (N, 4), corners in pixels of the image.
        size: (H, W) of the image.
        threshold: the probability from which a pixel belongs to the mask.

    Example:
        >>> masks = PastedMasks(torch.ones(1, 28, 28), torch.tensor([[1.0, 0, 3, 2]]), (2, 4))
        >>> masks[0].int()
        tensor([[0, 1, 1, 0],
                [0, 1, 1, 0]], dtype=torch.int32)
    """

    def __init__(
        self, probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5
    ):
        self.probabilities, self.boxes = probabilities, boxes
        self.size, self.threshold = size, threshold

    @property
    def device(self) -> torch.device:
        return self.probabilities.device

    def __len__(self) -> int:
        return len(self.probabilities)

    def __iter__(self) -> Iterator[Tensor]:
        height, width = self.size
        count = 1 if self.device.type == "cpu" else max(1, _CHUNK // (height * width))
        for start in range(0, len(self), count):
            yield from self._paste(slice(start, start + count))

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, int):
            return self._paste([item])[0]
        return PastedMasks(self.probabilities[item], self.boxes[item], self.size, self.threshold)

    def to(self, *args: Any, **kwargs: Any) -> "PastedMasks":
        """Return the masks on another device, still not pasted."""
        probabilities = self.probabilities.to(*args, **kwargs)
        boxes = self.boxes.to(*args, **kwargs)
        return PastedMasks(probabilities, boxes, self.size, self.threshold)

    def _paste(self, item: Any) -> Tensor:
        probabilities, boxes = self.probabilities[item], self.boxes[item]
        return paste_masks_in_image(probabilities, boxes, self.size, self.threshold)


class DetectorInference(nn.Module):
    """Run a detector; its ``pred_masks`` are :class:`PastedMasks` with the same values.

    Args:
        model: a Detectron2 detector that has no inference of its own.
    """

    def __init__(self, model: GeneralizedRCNN):
        super().__init__()
        self.model = model
        self.training = model.training  # what an evaluation restores afterwards

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Return ``{"instances": ...}`` of each input, as the model does."""
        outputs = []
        raw = self.model.inference(batched_inputs, do_postprocess=False)
        for found, item in zip(raw, batched_inputs, strict=True):
            height = item.get("height", found.image_size[0])
            width = item.get("width", found.image_size[1])
            if found.has("pred_masks"):
                masks = found.get("pred_masks")
                found.remove("pred_masks")
                found.set(_FIELD, masks.tensor if isinstance(masks, ROIMasks) else masks[:, 0])
            found = detector_postprocess(found, height, width)
            if found.has(_FIELD):
                boxes: Boxes = found.pred_boxes
                found.pred_masks = PastedMasks(
                    found.get(_FIELD), boxes.tensor, (int(height), int(width))
                )
                found.remove(_FIELD)
            outputs.append({"instances": found})
        return outputs


def with_pasted_masks(model: nn.Module) -> nn.Module:
    """Return a detector whose masks are pasted one at a time; any other model as it is."""
    if not isinstance(model, GeneralizedRCNN):
        return model
    base, own = GeneralizedRCNN, type(model)
    same = own.forward is base.forward and own.inference is base.inference
    return DetectorInference(model) if same else model
