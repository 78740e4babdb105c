"""Prediction for single images or clips with a model that is already built."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import Tensor, nn

from ccsa.data.image_reader import intensity_range, to_uint8
from ccsa.data.transforms.resize import ResizeShortestEdge
from ccsa.errors import UserError
from ccsa.inference.precision import autocast
from ccsa.modeling.clip import Clip, takes_clips


class ModelPredictor:
    """Run a model that is already built on single images, prepared as they are at test time.

    :class:`ccsa.Predictor` loads a trained model and returns its predictions with names; this class
    returns what the model returns, like Detectron2's ``DefaultPredictor``. The model runs in
    evaluation mode, without gradients, and in the precision of ``SOLVER.AMP``. Afterwards every
    module is in the mode it was in.

    Args:
        cfg: a configuration; ``INPUT`` defines how images are prepared.
        model: the model of that configuration, on its device.

    Attributes:
        clip: the frames of a clip, for a model that takes clips; None for a model that takes
            images.

    Example:
        >>> predictor = ModelPredictor(cfg, model)  # doctest: +SKIP
        >>> instances = predictor(image)["instances"]  # doctest: +SKIP
    """

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self.model = model
        self.format = cfg.INPUT.FORMAT
        self.clip = Clip.of(cfg) if takes_clips(cfg) else None
        self.resize = ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        self.cfg = cfg

    def __call__(self, image: np.ndarray, size: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return the outputs of the model for one image.

        Args:
            image: RGB of shape (H, W, 3), uint8; a clip of shape (T, H, W, 3) for a model that
                takes clips. Other types are mapped to 8 bits by ``INPUT.INTENSITY_RANGE``.
            size: height and width of the outputs in pixels; by default those of the image.

        Returns:
            The outputs under Detectron2's names, e.g. "instances" or "sem_seg". They are on the
            CPU, and floating point values are float32.
        """
        return self.run([self.prepare(image, size)])[0]

    def run(self, inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the outputs of the model for a batch of inputs; see :meth:`__call__`.

        Args:
            inputs: results of :meth:`prepare`. Images of different sizes are padded to one size by
                the model, which changes what it computes near their borders.
        """
        with self.inference():
            outputs = self.model(list(inputs))
        return [{key: _to_cpu(value) for key, value in output.items()} for output in outputs]

    def prepare(self, image: np.ndarray, size: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return the model's input for one image in Detectron2's format.

        Args:
            image, size: see :meth:`__call__`.

        Returns:
            "image", resized, of shape (C, h, w), or (T, C, h, w) for a clip, in the range 0 to 255
            and in the channel order of ``INPUT.FORMAT``; "height" and "width" of the outputs.
        """
        if image.dtype != np.uint8:
            image = self._to_8_bits(image)
        height, width = size or image.shape[-3:-1]
        frames = [self._to_tensor(frame) for frame in image.reshape(-1, *image.shape[-3:])]
        pixels = torch.stack(frames) if image.ndim == 4 else frames[0]
        return {"image": pixels, "height": height, "width": width}

    def _to_8_bits(self, image: np.ndarray) -> np.ndarray:
        """Return the image as uint8, by the range of intensities of the configuration.

        Raises:
            UserError: the configuration has none.
        """
        known = intensity_range(self.cfg.INPUT.get("INTENSITY_RANGE", "auto"))
        if known is None:
            raise UserError(
                f"the image has the type {image.dtype} instead of uint8, and the configuration has "
                "no range of intensities; pass uint8, or set INPUT.INTENSITY_RANGE '[low, high]'"
            )
        return to_uint8(image, known)

    def still(self, image: np.ndarray) -> np.ndarray:
        """Return an input that the model takes, made of one image (H, W, 3).

        For a model that takes clips, the image is repeated to a clip (T, H, W, 3) without motion.
        This serves to measure cost; predictions for such a clip mean little.
        """
        return image if self.clip is None else np.stack([image] * self.clip.frames)

    def _to_tensor(self, image: np.ndarray) -> Tensor:
        """Return RGB of shape (H, W, 3) as a resized tensor (C, h, w)."""
        pixels = convert_PIL_to_numpy(Image.fromarray(image), self.format)
        pixels = self.resize.get_transform(pixels).apply_image(pixels)
        return torch.as_tensor(pixels.astype("float32").transpose(2, 0, 1))

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Enter evaluation mode and the precision of ``SOLVER.AMP``, without gradients."""
        with evaluation_mode(self.model), torch.no_grad(), autocast(self.cfg):
            yield


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and restore the mode of every module afterwards.

    Example:
        >>> model = nn.Dropout()
        >>> with evaluation_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _to_cpu(value: Any) -> Any:
    """Move an output to the CPU and convert floating point values to float32, because NumPy has no
    bfloat16."""
    if isinstance(value, Tensor):
        value = value.cpu()
        return value.float() if value.is_floating_point() else value
    if isinstance(value, Boxes):
        return Boxes(_to_cpu(value.tensor))
    if isinstance(value, Instances):
        fields = {name: _to_cpu(field) for name, field in value.get_fields().items()}
        return Instances(value.image_size, **fields)
    if isinstance(value, tuple):  # the segment ids and segments of a panoptic segmentation
        return tuple(_to_cpu(part) for part in value)
    return value.to("cpu") if hasattr(value, "to") else value
