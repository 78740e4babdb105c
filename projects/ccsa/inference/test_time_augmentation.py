"""Test-time augmentation of semantic models: scales and mirroring, for any model that returns
"sem_seg"; and the wrappers that a configuration asks for.

Every prediction has the output's size before it is averaged, is mirrored back along the width, and
has left and right classes swapped back (LIP). The official CCNet code (evaluate.py) mirrors
predictions along another axis and adds maps of different sizes; neither is followed.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor, nn

from ccsa.data.transforms.flips import flip_permutation
from ccsa.errors import one_of
from ccsa.inference.sliding_window import AVERAGES, SlidingWindow, sem_seg_of


class SemanticTTA(nn.Module):
    """A model's predictions averaged over scales and flips, called as the model is; it returns
    "sem_seg" alone.

    Args:
        model: list[dict] -> list[dict] with "sem_seg" (K, height, width), as Detectron2's models.
        scales: factors of the size of the image that the model would get.
        flip: each scale also mirrored.
        flip_pairs: pairs of classes that trade places in a mirror.
        average: ``logits``, whatever the model returns, or ``softmax`` of it.

    Raises:
        ValueError: no scale, or one that is not above 0; a class in two pairs; an unknown average.
    """

    def __init__(
        self,
        model: nn.Module,
        scales: Sequence[float] = (1.0,),
        flip: bool = True,
        flip_pairs: Sequence[Sequence[int]] = (),
        average: str = "logits",
    ):
        super().__init__()
        if not scales or min(scales) <= 0:
            raise ValueError(f"scales must be one or more factors above 0, not {list(scales)}")
        paired = [c for pair in flip_pairs for c in pair]
        if any(len(pair) != 2 for pair in flip_pairs) or len(set(paired)) < len(paired):
            raise ValueError(f"flip_pairs must be pairs of different classes, not {flip_pairs}")
        self.model = model
        self.scales, self.flips = tuple(scales), (False, True) if flip else (False,)
        self.flip_pairs = [tuple(pair) for pair in flip_pairs]
        self.transform = one_of(AVERAGES, average, "average")

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """One ``{"sem_seg": (K, height, width)}`` for each input, of the size that the input asks
        for, by default the image's."""
        return [{"sem_seg": self._image(x)} for x in batched_inputs]

    def _image(self, x: dict[str, Any]) -> Tensor:
        image = x["image"]  # (C, H, W), or (T, C, H, W) of a video model
        height, width = x.get("height", image.shape[-2]), x.get("width", image.shape[-1])
        mean, count = None, 0
        for scale in self.scales:
            scaled = rescale(image, scale)
            for flip in self.flips:
                view = scaled.flip(-1) if flip else scaled
                view = {"image": view, "height": height, "width": width}
                scores = self.transform(sem_seg_of(self.model, view))
                if flip:
                    scores = self._mirror(scores)
                count += 1
                # A running mean keeps what all views agree on exactly.
                mean = scores.clone() if mean is None else mean.add_((scores - mean) / count)
        return mean

    def _mirror(self, scores: Tensor) -> Tensor:
        """(K, H, W) of a mirrored image, as of the image itself."""
        return scores[flip_permutation(len(scores), self.flip_pairs)].flip(-1)


def rescale(image: Tensor, scale: float) -> Tensor:
    """(C, H, W), or a clip (T, C, H, W), at ``scale`` times its size, at least one pixel; smoothed
    when it shrinks, as Detectron2's resize does. The same tensor for a scale of 1."""
    if scale == 1:
        return image
    size = [max(1, round(n * scale)) for n in image.shape[-2:]]
    frames = image.float().reshape(-1, *image.shape[-3:])
    resized = F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=True)
    return resized.reshape(*image.shape[:-2], *size)


def build_semantic_inference(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The model as ``TEST.SLIDING_WINDOW`` and ``TEST.SEM_SEG_AUG`` want it evaluated: itself where
    neither is enabled. Windows are taken of each scale.

    Raises:
        ValueError: settings out of range, or test sets whose ``flip_pairs`` differ.
    """
    average = cfg.TEST.SEM_SEG_AVERAGE
    if cfg.TEST.SLIDING_WINDOW.ENABLED:
        keys = cfg.TEST.SLIDING_WINDOW
        model = SlidingWindow(model, keys.CROP, keys.STRIDE, average)
        average = (
            "logits"  # of what the windows return, which are probabilities already for softmax
        )
    if cfg.TEST.SEM_SEG_AUG.ENABLED:
        keys = cfg.TEST.SEM_SEG_AUG
        pairs = {
            tuple(tuple(pair) for pair in MetadataCatalog.get(name).get("flip_pairs", ()))
            for name in cfg.DATASETS.TEST
        }
        if keys.FLIP and len(pairs) > 1:
            raise ValueError(
                f"the test sets {', '.join(cfg.DATASETS.TEST)} have different flip_pairs: evaluate "
                "them one at a time, or with TEST.SEM_SEG_AUG.FLIP False"
            )
        model = SemanticTTA(model, keys.SCALES, keys.FLIP, next(iter(pairs), ()), average)
    return model
