"""Training augmentation for semantic segmentation, configured by the keys of ``INPUT``.

The order is: resize, crop, color jitter, padding, flip. Detectron2's own augmentation lacks three
things that this module adds: a random scale factor, padding to the size of the crop with the pixel
mean and the ignored label, and a flip that exchanges left and right labels.
"""

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from fvcore.transforms.transform import PadTransform
from PIL import Image

from ccsa.data.transforms.flips import Pairs, RandomFlipWithSwap
from ccsa.errors import UserError
from ccsa.modeling.pixel_normalization import pixel_constants


class RandomScale(T.Augmentation):
    """Resize by a random factor and keep the aspect ratio.

    Args:
        low: the smallest factor.
        high: the largest factor.
        step: factors are low, low + step, ...; 0 for any factor in the range.
        long_side: the longer side, in pixels, for a factor of 1; 0 for that of the image.
        interp: Pillow's interpolation for the image; labels use the nearest neighbor.

    Raises:
        UserError: the range is empty, or ``step`` or ``long_side`` is negative.
    """

    def __init__(
        self,
        low: float,
        high: float,
        step: float = 0.0,
        long_side: int = 0,
        interp: int = Image.Resampling.BILINEAR,
    ):
        super().__init__()
        if not 0 < low <= high:
            raise UserError(
                f"scale factors must satisfy 0 < low <= high, not low {low} and high {high}"
            )
        if step < 0 or long_side < 0:
            raise UserError(f"step {step} and long_side {long_side} must not be negative")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Return the resize of ``image`` by a random factor."""
        height, width = image.shape[:2]
        factor = self._factor()
        if self.long_side:
            factor *= self.long_side / max(height, width)
        size = (max(1, round(side * factor)) for side in (height, width))
        return T.ResizeTransform(height, width, *size, self.interp)

    def _factor(self) -> float:
        if not self.step:
            return self._rand_range(self.low, self.high)
        steps = int((self.high - self.low) / self.step + 1e-6)
        return self.low + self.step * np.random.randint(steps + 1)


class PadToSize(T.Augmentation):
    """Pad on the right and at the bottom to at least ``size``.

    Args:
        size: height and width in pixels.
        color: the value of each channel of the padded image.
        label: the value of the padded labels.
    """

    def __init__(self, size: Sequence[int], color: Sequence[float], label: int):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Return the padding of ``image``, which is nothing for a large image."""
        height, width = image.shape[:2]
        bottom, right = (max(0, n - m) for n, m in zip(self.size, (height, width), strict=True))
        if not bottom and not right:
            return T.NoOpTransform()
        return ColorPadTransform(0, 0, right, bottom, width, height, self.color, self.label)


class ColorPadTransform(PadTransform):
    """fvcore's padding with one value per channel; fvcore has one value for all channels."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Return the padded image (H, W, C), of the same type; integers get the rounded color."""
        height, width, channels = img.shape
        size = (self.y0 + height + self.y1, self.x0 + width + self.x1, channels)
        color = np.asarray(self.pad_value, np.float64)
        padded = np.empty(size, img.dtype)
        padded[:] = color.round() if np.issubdtype(img.dtype, np.integer) else color
        padded[self.y0 : self.y0 + height, self.x0 : self.x0 + width] = img
        return padded


def semantic_augmentations(cfg: CfgNode, flip_pairs: Pairs = ()) -> list[T.Augmentation]:
    """Return the training augmentation that ``INPUT`` describes; with the keys of Detectron2 only
    and without a crop, it is that of Detectron2.

    Args:
        cfg: the configuration.
        flip_pairs: the labels that a horizontal flip exchanges.

    Raises:
        UserError: a key is out of its range.
    """
    keys = cfg.INPUT
    crop, pad = _crop(cfg) if keys.CROP.ENABLED else ([], [])
    return [_resize(keys), *crop, *_jitter(keys), *pad, *_flip(keys.RANDOM_FLIP, flip_pairs)]


def _resize(keys: CfgNode) -> T.Augmentation:
    """Return the resize of the image, a scale factor or the length of the shorter side."""
    scales = keys.SEM_SEG.SCALE_RANGE
    if not scales:
        if keys.SEM_SEG.SCALE_STEP or keys.SEM_SEG.LONG_SIDE:
            raise UserError(
                "INPUT.SEM_SEG.SCALE_STEP and LONG_SIDE need INPUT.SEM_SEG.SCALE_RANGE, e.g. "
                "[0.75, 2.0]"
            )
        return T.ResizeShortestEdge(
            keys.MIN_SIZE_TRAIN, keys.MAX_SIZE_TRAIN, keys.MIN_SIZE_TRAIN_SAMPLING
        )
    if len(scales) != 2:
        raise UserError(f"INPUT.SEM_SEG.SCALE_RANGE must be [low, high], not {list(scales)}")
    low, high = scales
    return RandomScale(low, high, keys.SEM_SEG.SCALE_STEP, keys.SEM_SEG.LONG_SIDE)


def _crop(cfg: CfgNode) -> tuple[list[T.Augmentation], list[T.Augmentation]]:
    """Return the crop, and for a crop of fixed size the padding of smaller images."""
    keys, ignore = cfg.INPUT.CROP, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    fixed = keys.TYPE == "absolute"
    size = list(keys.SIZE)
    if len(size) != 2 or min(size) <= 0 or (fixed and any(n != int(n) for n in size)):
        raise UserError(
            "INPUT.CROP.SIZE must be two positive values, height and width, in whole pixels for "
            f"INPUT.CROP.TYPE absolute; it is {size}"
        )
    size = [int(n) for n in size] if fixed else size
    crop = T.RandomCrop_CategoryAreaConstraint(
        keys.TYPE, size, keys.SINGLE_CATEGORY_MAX_AREA, ignore
    )
    return [crop], [PadToSize(size, pixel_constants(cfg)[0], ignore)] if fixed else []


def _jitter(keys: CfgNode) -> list[T.Augmentation]:
    """Return the color jitter, or nothing."""
    jitter = keys.SEM_SEG.COLOR_JITTER
    if not jitter.ENABLED:
        return []
    if keys.FORMAT not in ("RGB", "BGR"):
        raise UserError(f"color jitter needs INPUT.FORMAT RGB or BGR, not {keys.FORMAT}")
    for name in ("CONTRAST", "SATURATION"):
        if len(jitter[name]) != 2 or not 0 <= jitter[name][0] <= jitter[name][1]:
            raise UserError(
                f"INPUT.SEM_SEG.COLOR_JITTER.{name} must be [low, high] with 0 <= low <= high, not "
                f"{list(jitter[name])}"
            )
    transform = ColorAugSSDTransform(
        keys.FORMAT, jitter.BRIGHTNESS, *jitter.CONTRAST, *jitter.SATURATION, jitter.HUE
    )
    return [T.RandomApply(transform, 1.0)]


def _flip(direction: str, pairs: Pairs) -> list[T.Augmentation]:
    """Return the flip in ``direction``, or nothing."""
    if direction == "none":
        return []
    if direction == "vertical":
        return [T.RandomFlip(horizontal=False, vertical=True)]
    if direction == "horizontal":
        return [RandomFlipWithSwap(pairs=pairs)]
    raise UserError(f"INPUT.RANDOM_FLIP must be horizontal, vertical or none, not '{direction}'")
