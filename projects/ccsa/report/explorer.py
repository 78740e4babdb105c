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
from torch import Tensor, nn

from ccsa.analysis import CrissCrossMaps, attention_maps
from ccsa.errors import UserError
from ccsa.prediction import Predictor
from ccsa.report.explorer_branches import score_views, squeeze_views
from ccsa.report.explorer_check import check_faithfulness, find_region, on_cpu
from ccsa.report.explorer_clips import Source, clip_map, clip_weights, read_sources
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
PARTS = (
    *("explorer_math.js", "explorer_state.js", "explorer_draw.js"),
    *("explorer_frames.js", "explorer_page.js"),
)


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
        files: images; for a model of clips, the frames of each clip in order of time, or videos,
            see :func:`ccsa.report.explorer_clips.read_sources`.
        limit: larger feature maps are reduced to at most this many rows and columns.
        check: also measure whether the prediction depends on the attended positions, which takes 22
            predictions for each image and block; see :mod:`ccsa.report.explorer_check`.
        truth: the ground truth of images and of predicted frames, see
            :func:`ccsa.report.explorer_truth.find_truth`.

    Raises:
        UserError: the model has no criss-cross and no squeeze-and-attention block that runs on the
            whole image, an image cannot be read, or the images are not the frames of whole clips.
    """
    known = truth or {}
    images = [
        _explore_source(predictor, source, limit, check, known.get(source.file or Path()))
        for source in read_sources(predictor, [Path(file) for file in files])
    ]
    if not all(image["blocks"] or image["squeeze"] for image in images):
        raise UserError(
            f"{name} has no criss-cross and no squeeze-and-attention block that runs on the whole "
            "image, so there is no attention to explore; name a run with such a block "
            "(MODEL.CONTEXT.BLOCKS, CCNetHead or SANetHead)"
        )
    return {"name": name, "images": images}


def write_page(runs: Sequence[dict[str, Any]], file: str | Path) -> None:
    """Write the page for one or more results of :func:`explore`, of the same images or clips.

    Raises:
        UserError: the models take different numbers of frames, or the file cannot be written.
    """
    lengths = {len(run["images"][0].get("frames", ())) or 1: run["name"] for run in runs}
    if len(lengths) > 1:
        (one, first), (other, second) = list(lengths.items())[:2]
        raise UserError(
            f"{first} takes {one} and {second} takes {other} frames, and the page compares models "
            "at the same position of the same frames; write one page for each"
        )
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


def _explore_source(
    predictor: Predictor, source: Source, limit: int, check: bool, truth: Truth | None
) -> dict[str, Any]:
    inputs = predictor.prepare(source.pixels)
    clip = predictor.clip
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
        and (clip is None or each.weights[0].shape[-4] == clip.frames)
    ]
    found = predictor(source.pixels)
    names = found.names.things, found.names.stuff
    inside = height / covered[0], width / covered[1]
    squeeze = {
        path: each for path, each in maps.squeeze_attention.items() if not path.startswith(regions)
    }
    region = find_region(on_cpu(maps.outputs[0]), *names) if check and calls else None
    blocks = []
    for path, each in calls:
        weights = [clip_weights(w) if clip else w[0] for w in each.weights]
        blocks.append(_block(path, each, weights, limit))
        if region is not None:
            blocks[-1]["check"] = check_faithfulness(predictor, inputs, region, weights, covered)
    frames = [
        {"name": name, "picture": _picture(pixels)}
        for name, pixels in zip(source.frames, source.pixels, strict=False)
    ]
    labelled = 0 if clip is None else clip.labelled
    return {
        "name": source.name,
        **({"frames": frames, "labelled": labelled} if clip else {}),
        "picture": _picture(found.image),
        "prediction": _picture(found.draw()),
        "truth": None if truth is None else _picture(draw_truth(found, truth)),
        "height": found.image.shape[0],
        "width": found.image.shape[1],
        # The model pads images at the bottom and on the right; feature maps cover the padding too.
        "covered": [covered[0] / height, covered[1] / width],
        "blocks": blocks,
        "squeeze": squeeze_views(squeeze, inside, labelled),
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


def _block(
    path: str, maps: CrissCrossMaps, weights: Sequence[Tensor], limit: int
) -> dict[str, Any]:
    """Return the data of a block that ran on one image or clip, with the given weights."""
    *frames, height, width = weights[0].shape[:-1]
    factor = reduction_factor((height, width), limit)
    weights = [reduced_weights(each, factor) for each in weights]
    contribution = clip_map(maps.contribution_norm) if frames else maps.contribution_norm[0]
    # Not the mean of ratios, because activation functions make some inputs 0.
    relative = maps.contribution_norm.mean() / maps.input_norms[0].mean().clamp_min(1e-12)
    return {
        "path": path,
        "size": list(weights[0].shape[:-1]),
        "original": [*frames, height, width],
        "gamma": maps.gamma,
        "weights": [encoded_weights(each) for each in weights],
        "contribution": encoded_map(reduced_map(contribution, factor)),
        "relative": float(relative),
    }


def _picture(image: np.ndarray) -> str:
    """Return an RGB image (H, W, 3) as the data URL of a JPEG file of limited size."""
    picture, stream = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    picture.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
