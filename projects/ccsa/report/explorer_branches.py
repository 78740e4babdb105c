"""What the attention explorer shows of squeeze-and-attention blocks and of semantic heads.

As in the figure of the paper (arXiv 1909.03402), every stage is shown with its attention branch,
its main branch and their product, including the stages that inference skips, and every output of a
head with the probabilities of the classes that occur most in its prediction.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccsa.analysis import SqueezeAttentionMaps

_CLASSES = 4  # of a head, at most
_CATEGORIES = 6
_COMPLETE = ("prediction", "mask", "dense", "auxiliary")  # the others are stages of the masks
_ENLARGED = 160  # the longer side of a small map in pixels, at most
Inside = tuple[float, float]  # the part of the padded height and width that the image covers


def squeeze_views(
    found: Mapping[str, Sequence[SqueezeAttentionMaps]], inside: Inside, labelled: int = 0
) -> list[dict[str, Any]]:
    """Return ``path``, ``words`` and ``maps`` of every squeeze-and-attention block.

    A map has ``name``, ``picture`` (a PNG file as a data address), ``low`` and ``high``. It is the
    norm over channels, which is not negative, because branches have many channels of either sign.
    Of a block that processes all frames of a clip, the frame ``labelled`` is shown.
    """
    views = []
    for path, calls in found.items():
        for number, maps in enumerate(calls, 1):
            frame = min(labelled, len(maps.main) - 1)
            branches = {
                "attention branch": maps.attention,
                "main branch": maps.main,
                "product": maps.product,
            }
            norms = {k: torch.linalg.vector_norm(v[frame], dim=0) for k, v in branches.items()}
            views.append(
                {
                    "path": path if len(calls) == 1 else f"{path}, call {number}",
                    "words": _words(maps),
                    "maps": [_map(k, v, inside) for k, v in norms.items()]
                    + [_map("contribution", maps.contribution_norm[frame], inside)],
                }
            )
    return views


def _words(maps: SqueezeAttentionMaps) -> str:
    size = " x ".join(map(str, maps.attention.shape[2:]))
    text = f"{maps.attention.shape[1]} channels of {size} positions. "
    if maps.gamma is None:
        return text + "Non-residual form: the result replaces the input."
    share = float(maps.contribution_norm.mean() / maps.input_norm.mean().clamp_min(1e-12))
    return text + (
        f"gamma = {maps.gamma:.3g}: on average, the norm of what the block adds is "
        f"{100 * share:.3g} % of the norm of its input."
    )


def score_views(
    found: Mapping[str, Mapping[str, Tensor]], names: Sequence[str], inside: Inside
) -> list[dict[str, Any]]:
    """Return ``path``, ``outputs`` and ``categories`` of every semantic head.

    An output has ``name``, ``words`` and ``maps``: of the classes that occur most in the final
    prediction, the probabilities or, for a stage, what it adds to the logits of the masks.
    ``categories`` are sentences on the classes that the categorical output finds in the image.
    """
    views = []
    for path, outputs in found.items():
        labels = _inside(outputs["prediction"][0], inside).argmax(0)
        classes, counts = labels.unique(return_counts=True)
        chosen = classes[counts.argsort(descending=True)][:_CLASSES].tolist()
        shown: list[dict[str, Any]] = []
        categories: list[str] = []
        for name, scores in outputs.items():
            if scores.dim() == 2:
                present = scores[0].sigmoid()
                order = present.argsort(descending=True)[:_CATEGORIES].tolist()
                categories = [f"{_name(names, k)} {100 * float(present[k]):.0f} %" for k in order]
                continue
            complete = name in _COMPLETE
            values = scores[0].softmax(0) if complete else scores[0]
            words = "probability of the class" if complete else "what the stage adds to the logit"
            limits = (0.0, 1.0) if complete else None
            maps = [_map(_name(names, k), values[k], inside, limits) for k in chosen]
            shown.append({"name": name, "words": words, "maps": maps})
        views.append({"path": path, "outputs": shown, "categories": categories})
    return views


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def _inside(values: Tensor, inside: Inside) -> Tensor:
    """Return the part (..., h, w) of values (..., H, W) that the image covers, without padding."""
    height, width = values.shape[-2:]
    rows, columns = max(1, round(height * inside[0])), max(1, round(width * inside[1]))
    return values[..., :rows, :columns]


def _map(
    name: str, values: Tensor, inside: Inside, limits: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return values (H, W) as a picture with the colors of the page, and their range."""
    shown = _inside(values, inside).double().numpy()
    low, high = limits or (min(0.0, float(shown.min())), float(shown.max()))
    scaled = (shown - low) / (high - low) if high > low else np.zeros_like(shown)
    steps = np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)
    factor = max(1, _ENLARGED // max(steps.shape))
    picture = Image.fromarray(steps.repeat(factor, 0).repeat(factor, 1), "P")
    colors = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    picture.putpalette(colors.tobytes())
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    address = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
    return {"name": name, "picture": address, "low": low, "high": high}
