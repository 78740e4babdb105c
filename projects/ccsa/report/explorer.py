"""The attention explorer: one static page that shows what context blocks attend to.

    from ccsa import Predictor
    from ccsa.report.explorer import explore, write_page

    predictor = Predictor.from_run("output/digits/ccnet_mask_rcnn/1")
    write_page([explore("R = 2", predictor, ["photo.jpg"])], "explorer.html")

The page needs neither a server nor a network. It holds the attention weights of every application
and composes them in the browser; see :mod:`ccsa.report.explorer_data` for their form.
``tools/explore.py`` is the command line.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from detectron2.modeling.roi_heads import ROIHeads
from PIL import Image
from torch import nn

from ccsa.analysis import CrissCrossMaps, attention_maps
from ccsa.errors import UserError
from ccsa.prediction import Predictor
from ccsa.report.explorer_branches import score_views, squeeze_views
from ccsa.report.explorer_check import check_faithfulness, find_region, on_cpu
from ccsa.report.explorer_data import (
    encoded_map,
    encoded_weights,
    reduced_map,
    reduced_weights,
    reduction_factor,
)
from ccsa.report.explorer_truth import Truth, draw_truth
from ccsa.utils.files import write_text

LARGEST = 97
"""The longest side of a feature map that is shown without reduction."""
LARGEST_PICTURE = 640  # pixels
PARTS = ("explorer_math.js", "explorer_page.js")


def explore(
    name: str,
    predictor: Predictor,
    files: Sequence[str | Path],
    limit: int = LARGEST,
    *,
    check: bool = True,
    truth: Mapping[Path, Truth] | None = None,
) -> dict[str, Any]:
    """Return what the page shows of one model, ready for JSON.

    Args:
        name: the name of the model on the page.
        predictor: the model. It runs in float32 on each whole image, also if it predicts in
            windows.
        files: images.
        limit: larger feature maps are reduced to at most this many rows and columns.
        check: also measure whether the prediction depends on the attended positions, which takes 22
            predictions for each image and block; see :mod:`ccsa.report.explorer_check`.
        truth: the ground truth of images, see :func:`ccsa.report.explorer_truth.find_truth`.

    Raises:
        UserError: the model takes clips, it has no criss-cross and no squeeze-and-attention block
            that runs on the whole image, or an image cannot be read.
    """
    if predictor.clip is not None:
        raise UserError(
            f"{name} takes clips, and the attention explorer shows models of single images; use "
            "ccsa.analysis.attention_maps for the attention of clips"
        )
    known = truth or {}
    images = [
        _explore_image(predictor, file, limit, check, known.get(file)) for file in map(Path, files)
    ]
    if not all(image["blocks"] or image["squeeze"] for image in images):
        raise UserError(
            f"{name} has no criss-cross and no squeeze-and-attention block that runs on the whole "
            "image, so there is no attention to explore; name a run with such a block "
            "(MODEL.CONTEXT.BLOCKS, CCNetHead or SANetHead)"
        )
    return {"name": name, "images": images}


def write_page(runs: Sequence[dict[str, Any]], file: str | Path) -> None:
    """Write the page for one or more results of :func:`explore`, of the same images.

    Raises:
        UserError: the file cannot be written.
    """
    colors = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    data = {"runs": list(runs), "colors": colors.reshape(-1).tolist()}
    folder = resources.files("ccsa.report")
    template = jinja2.Template(_text(folder, "explorer.html"), autoescape=True)
    page = template.render(
        # "<" only occurs within strings, and must not end the script element
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        script="\n".join(_text(folder, part) for part in PARTS),
        style=_text(folder, "explorer.css"),
    )
    write_text(Path(file), page)


def _text(folder: Any, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def _explore_image(
    predictor: Predictor, file: Path, limit: int, check: bool, truth: Truth | None
) -> dict[str, Any]:
    inputs = predictor.prepare(file)
    height, width = inputs["image"].shape[-2:]
    covered: tuple[int, int] = (height, width)

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal covered
        covered = args[0].shape[-2:]

    handle = predictor.model.get_submodule("backbone").register_forward_pre_hook(record)
    try:
        maps = attention_maps(predictor.model, [inputs])
    finally:
        handle.remove()
    regions = _region_blocks(predictor.model)
    calls = [
        (path if len(found) == 1 else f"{path}, call {index}", each)
        for path, found in maps.criss_cross.items()
        if not path.startswith(regions)
        for index, each in enumerate(found, 1)
        if each.weights  # R = 0 has none
    ]
    found = predictor(file)
    names = found.names.things, found.names.stuff
    inside = height / covered[0], width / covered[1]
    squeeze = {
        path: each for path, each in maps.squeeze_attention.items() if not path.startswith(regions)
    }
    region = find_region(on_cpu(maps.outputs[0]), *names) if check and calls else None
    blocks = [_block(path, each, limit) for path, each in calls]
    if region is not None:
        for block, (_, each) in zip(blocks, calls, strict=True):
            block["check"] = check_faithfulness(predictor, inputs, region, each, covered)
    return {
        "name": file.name,
        "picture": _picture(found.image),
        "prediction": _picture(found.draw()),
        "truth": None if truth is None else _picture(draw_truth(found, truth)),
        "height": found.image.shape[0],
        "width": found.image.shape[1],
        # The model pads images at the bottom and on the right; feature maps cover the padding too.
        "covered": [covered[0] / height, covered[1] / width],
        "blocks": blocks,
        "squeeze": squeeze_views(squeeze, inside),
        "scores": score_views(maps.class_scores, found.names.stuff, inside),
        "hidden": sorted(
            path
            for path in (*maps.criss_cross, *maps.squeeze_attention)
            if path.startswith(regions)
        ),
    }


def _region_blocks(model: nn.Module) -> tuple[str, ...]:
    """Return the prefixes of modules that run on regions of objects, not on the whole image."""
    return tuple(f"{path}." for path, m in model.named_modules() if isinstance(m, ROIHeads))


def _block(path: str, maps: CrissCrossMaps, limit: int) -> dict[str, Any]:
    """Return the data of a block that ran on one image."""
    height, width = maps.weights[0].shape[1:3]
    factor = reduction_factor((height, width), limit)
    weights = [reduced_weights(each[0], factor) for each in maps.weights]
    # Not the mean of ratios, because activation functions make some inputs 0.
    relative = maps.contribution_norm.mean() / maps.input_norms[0].mean().clamp_min(1e-12)
    return {
        "path": path,
        "size": list(weights[0].shape[:2]),
        "original": [height, width],
        "gamma": maps.gamma,
        "weights": [encoded_weights(each) for each in weights],
        "contribution": encoded_map(reduced_map(maps.contribution_norm[0], factor)),
        "relative": float(relative),
    }


def _picture(image: np.ndarray) -> str:
    """Return an RGB image (H, W, 3) as the data URL of a JPEG file of limited size."""
    picture, stream = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    picture.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
