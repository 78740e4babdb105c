"""Training augmentation for semantic segmentation, from the keys of ``INPUT``.

In this order: resize, crop, colour jitter, padding, flip. It differs from Detectron2's own only in
what its keys cannot say: a random factor of the image's size, padding to the crop with the pixel
mean and the ignored label, and a mirror that exchanges left and right labels.
"""

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from fvcore.transforms.transform import PadTransform
from PIL import Image

from ccsa.data.transforms.flips import Pairs, RandomFlipWithSwap
from ccsa.modeling.pixel_normalization import pixel_constants


class RandomScale(T.Augmentation):
    """Resize by a random factor, the aspect ratio kept.

    Args:
        low, high: the range of factors, both included.
        step: factors are low, low + step, ...; 0 for any factor.
        long_side: the longer side, in pixels, that a factor of 1 gives; 0 for the image's own.
        interp: PIL's interpolation for the image; labels take the nearest.

    Raises:
        ValueError: an empty range, a step or a side below 0.
    """

    def __init__(
        self,
        low: float,
        high: float,
        step: float = 0.0,
        long_side: int = 0,
        interp: int = Image.BILINEAR,
    ):
        super().__init__()
        if not 0 < low <= high:
            raise ValueError(f"factors must run from above 0 upwards, not from {low} to {high}")
        if step < 0 or long_side < 0:
            raise ValueError(f"step {step} and long_side {long_side} must not be below 0")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
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
        size: height and width.
        color: one value a channel, for the image.
        label: for the labels.
    """

    def __init__(self, size: Sequence[int], color: Sequence[float], label: int):
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        bottom, right = (max(0, n - m) for n, m in zip(self.size, (height, width), strict=True))
        if not bottom and not right:
            return T.NoOpTransform()
        return ColorPadTransform(0, 0, right, bottom, width, height, self.color, self.label)


class ColorPadTransform(PadTransform):
    """fvcore's padding, whose value is one for all channels, with one a channel."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, C) -> padded, of the same type; integers get the nearest value."""
        height, width, channels = img.shape
        size = (self.y0 + height + self.y1, self.x0 + width + self.x1, channels)
        color = np.asarray(self.pad_value, np.float64)
        padded = np.empty(size, img.dtype)
        padded[:] = color.round() if np.issubdtype(img.dtype, np.integer) else color
        padded[self.y0 : self.y0 + height, self.x0 : self.x0 + width] = img
        return padded


def semantic_augmentations(cfg: CfgNode, flip_pairs: Pairs = ()) -> list[T.Augmentation]:
    """What ``INPUT`` asks for in training; with keys of Detectron2 alone and no crop, the same as
    Detectron2 does.

    Args:
        flip_pairs: labels that a horizontal flip exchanges.

    Raises:
        ValueError: a key out of its range.
    """
    keys = cfg.INPUT
    crop, pad = _crop(cfg) if keys.CROP.ENABLED else ([], [])
    return [_resize(keys), *crop, *_jitter(keys), *pad, *_flip(keys.RANDOM_FLIP, flip_pairs)]


def _resize(keys: CfgNode) -> T.Augmentation:
    scales = keys.SEM_SEG.SCALE_RANGE
    if not scales:
        if keys.SEM_SEG.SCALE_STEP or keys.SEM_SEG.LONG_SIDE:
            raise ValueError(
                "INPUT.SEM_SEG.SCALE_STEP and LONG_SIDE need INPUT.SEM_SEG.SCALE_RANGE, e.g. "
                "[0.75, 2.0]"
            )
        return T.ResizeShortestEdge(
            keys.MIN_SIZE_TRAIN, keys.MAX_SIZE_TRAIN, keys.MIN_SIZE_TRAIN_SAMPLING
        )
    if len(scales) != 2:
        raise ValueError(f"INPUT.SEM_SEG.SCALE_RANGE must be [low, high], not {list(scales)}")
    return RandomScale(*scales, keys.SEM_SEG.SCALE_STEP, keys.SEM_SEG.LONG_SIDE)


def _crop(cfg: CfgNode) -> tuple[list[T.Augmentation], list[T.Augmentation]]:
    """The crop, and for a crop of fixed size the padding of what is smaller."""
    keys, ignore = cfg.INPUT.CROP, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    fixed = keys.TYPE == "absolute"
    size = list(keys.SIZE)
    if len(size) != 2 or min(size) <= 0 or (fixed and any(n != int(n) for n in size)):
        raise ValueError(
            "INPUT.CROP.SIZE must be two values above 0, height and width in whole pixels for "
            f"INPUT.CROP.TYPE absolute; it is {size}"
        )
    size = [int(n) for n in size] if fixed else size
    crop = T.RandomCrop_CategoryAreaConstraint(
        keys.TYPE, size, keys.SINGLE_CATEGORY_MAX_AREA, ignore
    )
    return [crop], [PadToSize(size, pixel_constants(cfg)[0], ignore)] if fixed else []


def _jitter(keys: CfgNode) -> list[T.Augmentation]:
    jitter = keys.SEM_SEG.COLOR_JITTER
    if not jitter.ENABLED:
        return []
    if keys.FORMAT not in ("RGB", "BGR"):
        raise ValueError(f"colour jitter needs INPUT.FORMAT RGB or BGR, not {keys.FORMAT}")
    for name in ("CONTRAST", "SATURATION"):
        if len(jitter[name]) != 2 or not 0 <= jitter[name][0] <= jitter[name][1]:
            raise ValueError(
                f"INPUT.SEM_SEG.COLOR_JITTER.{name} must be [low, high] from 0 upwards, not "
                f"{list(jitter[name])}"
            )
    transform = ColorAugSSDTransform(
        keys.FORMAT, jitter.BRIGHTNESS, *jitter.CONTRAST, *jitter.SATURATION, jitter.HUE
    )
    return [T.RandomApply(transform, 1.0)]


def _flip(direction: str, pairs: Pairs) -> list[T.Augmentation]:
    if direction == "none":
        return []
    if direction == "vertical":
        return [T.RandomFlip(horizontal=False, vertical=True)]
    if direction == "horizontal":
        return [RandomFlipWithSwap(pairs=pairs)]
    raise ValueError(f"INPUT.RANDOM_FLIP must be horizontal, vertical or none, not '{direction}'")
