"""The base class of models that are exported completely, from an image of any size."""

from typing import Any

from detectron2.config import CfgNode
from torch import Tensor, nn

from ccsa.export.canvas import Preparation


class WholePart(nn.Module):
    """A model from a uint8 RGB image (H, W, 3), or a clip (T, H, W, 3), to its results.

    It shares the weights of the model.

    Attributes:
        outputs: the names of the results of :meth:`forward`.
        frames: the number of frames of a clip, or 1 for images.
        multiple: 1, because height and width are free.
    """

    outputs: list[str]
    frames: int = 1
    multiple: int = 1

    def __init__(self, cfg: CfgNode, model: Any):
        super().__init__()
        self.preparation = Preparation(cfg, model)
        self.backbone = model.backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of an image or a clip, in the order of ``outputs``."""
        raise NotImplementedError
