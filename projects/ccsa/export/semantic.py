"""Semantic and video models: from an image of any size to the class of each pixel."""

from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor

from ccsa.export.canvas import as_size
from ccsa.export.whole import WholePart
from ccsa.modeling.layers import at_least_float32


class SemanticProgram(WholePart):
    """From a uint8 RGB image (H, W, 3) to its classes (H, W), int64.

    For a video model, a clip (T, H, W, 3) gives the classes of its labeled frame. It repeats
    the inference of :class:`ccsa.modeling.DenseSegmentor`. Its only output is ``semantic``.
    """

    def __init__(self, cfg: CfgNode, model: Any):
        super().__init__(cfg, model)
        self.head = model.sem_seg_head
        self.outputs = ["semantic"]
        self.frames = getattr(self.head, "frames", 1)

    def logits(self, image: Tensor) -> Tensor:
        """Return the logits (K, H, W) of an image (H, W, 3) or a clip (T, H, W, 3)."""
        canvas = self.preparation(image)
        logits = at_least_float32(self.head.layers(self.backbone(canvas.pixels)))
        align_corners = getattr(self.head, "align_corners", False)
        size = canvas.pixels.shape[-2:]
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)
        rows, columns = as_size(canvas.used[0]), as_size(canvas.used[1])
        size = image.shape[-3:-1]
        logits = logits[:, :, :rows, :columns]
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0]

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Return the classes, as a tuple of one tensor."""
        return (self.logits(image).argmax(0),)
