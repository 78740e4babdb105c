"""Training augmentation: Detectron2's transforms and those that its configuration lacks."""

from ccsa.data.transforms.flips import RandomFlipWithSwap, SwapFlipTransform, flip_permutation
from ccsa.data.transforms.semantic import PadToSize, RandomScale, semantic_augmentations

__all__ = [
    "PadToSize",
    "RandomFlipWithSwap",
    "RandomScale",
    "SwapFlipTransform",
    "flip_permutation",
    "semantic_augmentations",
]
