"""What each image adds to the metrics of a semantic or panoptic evaluation, in files of the run.

Intervals and comparisons of runs resample images, so they need the counts of every image. The sum
over the images gives the metrics of the run.

M: images, K: classes.
"""

import json
import math
import os.path
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ccsa.errors import UserError
from ccsa.evaluation.panoptic_quality import Counts
from ccsa.utils.files import atomic_write, write_text

SEMANTIC, PANOPTIC = "sem_seg_counts.npz", "panoptic_counts.json"
_FIX = "evaluate the run again with tools/train_net.py --eval-only"


class SemanticCounts(NamedTuple):
    """The pixels of a semantic evaluation.

    Attributes:
        images: the M names of the images, relative to the folder that contains all of them.
        classes: the K names of the classes.
        pixels: (M, 3, K), int64: pixels that are correct, labelled and predicted; ignored pixels do
            not count.
        boundary: (M, 3, K), the pixels on the boundary of both, of the prediction and of the label,
            see :func:`ccsa.evaluation.semantic.boundary_counts`.
        confusion: (K, K), the pixels of all images, predictions in rows and labels in columns.
    """

    images: list[str]
    classes: list[str]
    pixels: np.ndarray
    boundary: np.ndarray
    confusion: np.ndarray


class PanopticCounts(NamedTuple):
    """The matched segments of a panoptic evaluation.

    Attributes:
        classes: ``{category id: name}``.
        things: the category ids that are things.
        images: ``{image id: {category id: [sum of IoUs, TP, FP, FN]}}``.
    """

    classes: dict[int, str]
    things: list[int]
    images: dict[str, Counts]


def write_semantic_counts(folder: Path, counts: SemanticCounts) -> None:
    """Write the counts to ``sem_seg_counts.npz``."""
    arrays = {
        **counts._asdict(),
        "images": np.array(_short(counts.images)),
        "classes": np.array(counts.classes),
    }
    with atomic_write(folder / SEMANTIC) as partial:
        np.savez_compressed(partial, **arrays)


def _short(files: Sequence[str]) -> list[str]:
    """Return names of files relative to their common folder, so that the data may move."""
    if len(files) < 2:
        return [os.path.basename(file) for file in files]
    common = os.path.commonpath([os.path.dirname(file) for file in files])
    return [os.path.relpath(file, common) for file in files]


def read_semantic_counts(folder: Path) -> SemanticCounts:
    """Read ``sem_seg_counts.npz``.

    Raises:
        UserError: the file does not exist, or is not what :func:`write_semantic_counts` writes.
    """
    file = _existing(folder / SEMANTIC)
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in SemanticCounts._fields}
    except UserError:
        raise
    except Exception as error:  # whatever NumPy, zipfile and zlib raise
        raise _damaged(file) from error
    images, classes = arrays["images"], arrays["classes"]
    valid = images.ndim == classes.ndim == 1
    shape = images.size, 3, classes.size
    valid = valid and arrays["pixels"].shape == arrays["boundary"].shape == shape
    valid = valid and arrays["confusion"].shape == (classes.size, classes.size)
    numbers = [arrays[name] for name in ("pixels", "boundary", "confusion")]
    if not valid or any(n.dtype != np.int64 or n.min(initial=0) < 0 for n in numbers):
        raise _damaged(file)
    arrays["images"], arrays["classes"] = images.tolist(), classes.tolist()
    return SemanticCounts(**arrays)


def write_panoptic_counts(folder: Path, counts: PanopticCounts) -> None:
    """Write the counts to ``panoptic_counts.json``."""
    content = {
        "categories": [
            {"id": number, "name": name, "isthing": int(number in counts.things)}
            for number, name in counts.classes.items()
        ],
        "images": counts.images,
    }
    write_text(folder / PANOPTIC, json.dumps(content))


def read_panoptic_counts(folder: Path) -> PanopticCounts:
    """Read ``panoptic_counts.json``.

    Raises:
        UserError: the file does not exist, or is not what :func:`write_panoptic_counts` writes.
    """
    file = _existing(folder / PANOPTIC)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        classes = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        things = [int(c["id"]) for c in content["categories"] if c["isthing"]]
        images = {
            str(image): {int(number): list(map(float, sums)) for number, sums in found.items()}
            for image, found in content["images"].items()
        }
        valid = all(
            number in classes and _are_sums(sums)
            for found in images.values()
            for number, sums in found.items()
        )
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(file) from error
    if not valid:
        raise _damaged(file)
    return PanopticCounts(classes, things, images)


def _are_sums(values: list[float]) -> bool:
    """Return whether values can be [sum of IoUs, TP, FP, FN]."""
    whole = all(math.isfinite(v) and v >= 0 and v == int(v) for v in values[1:])
    return len(values) == 4 and whole and 0 <= values[0] <= values[1] + 1e-9


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise UserError(f"{file} does not exist; {_FIX}")
    return file


def _damaged(file: Path) -> UserError:
    return UserError(f"{file} is damaged; {_FIX}")
