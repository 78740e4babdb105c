"""A model on single images or clips, prepared as at test time."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import Tensor, nn

from ccsa.inference.precision import autocast
from ccsa.modeling.clip import Clip, takes_clips


class Predictor:
    """What Detectron2's DefaultPredictor does, for a model that is there already.

    The model runs in evaluation mode and in the precision of ``SOLVER.AMP``; afterwards it is in
    the mode it was in.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self.model = model
        self.format = cfg.INPUT.FORMAT
        self.clip = Clip.of(cfg) if takes_clips(cfg) else None  # None for an image model
        self.resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        self.cfg = cfg

    def __call__(self, image: np.ndarray, size: tuple[int, int] | None = None) -> dict[str, Any]:
        """
        Args:
            image: (H, W, 3) RGB, uint8; (T, H, W, 3) for a video model.
            size: (height, width) of the outputs; that of the image by default.

        Returns:
            The model's outputs for this image, on the CPU, floating point in float32.
        """
        inputs = self.prepare(image, size)
        with self.inference():
            outputs = self.model([inputs])[0]
        return {key: _on_cpu(value) for key, value in outputs.items()}

    def prepare(self, image: np.ndarray, size: tuple[int, int] | None = None) -> dict[str, Any]:
        """The model's input for an image, in Detectron2's form; arguments as above."""
        height, width = size or image.shape[-3:-1]
        frames = [self._pixels(frame) for frame in image.reshape(-1, *image.shape[-3:])]
        pixels = torch.stack(frames) if image.ndim == 4 else frames[0]
        return {"image": pixels, "height": height, "width": width}

    def still(self, image: np.ndarray) -> np.ndarray:
        """The image, or for a video model a clip in which nothing moves: to measure, not to see."""
        return image if self.clip is None else np.stack([image] * self.clip.frames)

    def _pixels(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) RGB -> (C, h, w)."""
        pixels = convert_PIL_to_numpy(Image.fromarray(image), self.format)
        pixels = self.resize.get_transform(pixels).apply_image(pixels)
        return torch.as_tensor(pixels.astype("float32").transpose(2, 0, 1))

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Evaluation mode and the precision of ``SOLVER.AMP``, without gradients."""
        with evaluation_mode(self.model), torch.no_grad(), autocast(self.cfg):
            yield


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _on_cpu(value: Any) -> Any:
    """NumPy knows no bfloat16, so floating point becomes float32."""
    if isinstance(value, Tensor):
        value = value.cpu()
        return value.float() if value.is_floating_point() else value
    if isinstance(value, Boxes):
        return Boxes(_on_cpu(value.tensor))
    if isinstance(value, Instances):
        fields = {name: _on_cpu(field) for name, field in value.get_fields().items()}
        return Instances(value.image_size, **fields)
    if isinstance(value, tuple):  # a panoptic map and its segments
        return tuple(_on_cpu(part) for part in value)
    return value.to("cpu") if hasattr(value, "to") else value
