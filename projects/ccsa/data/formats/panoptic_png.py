"""Panoptic PNGs: segment ids encoded as colors, their validity, and labels made from them.

The id of a pixel's segment is R + 256 G + 256^2 B, and 0 is void. Evaluators, drawings and tools
use this reader; panopticapi, which defines the format, is not on PyPI and not used.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ccsa.data.formats.label_images import IGNORE
from ccsa.errors import UserError
from ccsa.utils.files import atomic_write, regular_file

VOID = 0  # the id of pixels that belong to no segment
MAX_ID = 256**3 - 1  # the largest id that three bytes hold
BAD_IDS, BAD_CATEGORIES = "bad ids", "bad categories"  # kinds of problems


class Segment(NamedTuple):
    """A segment as described in the JSON."""

    id: int
    category_id: int
    iscrowd: bool = False
    area: float | None = None  # pixels; only for ground truth


def read_segment_ids(path: Path) -> np.ndarray:
    """Return the segment ids (H, W) of a panoptic PNG, uint32.

    Raises:
        UserError: the file cannot be read, or its pixels do not have three channels of 8 bits.
    """
    fix = "replace it with an intact copy"
    try:
        with Image.open(regular_file(path)) as image:
            mode = image.mode
            if mode in ("RGB", "RGBA"):  # panopticapi accepts both and ignores alpha
                rgb = np.asarray(image)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; {fix}") from error
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read {path} ({error}); {fix}") from error
    if mode not in ("RGB", "RGBA"):
        raise UserError(
            f"{path} is not a panoptic PNG: it has mode {mode} instead of RGB, whose colors are "
            f"segment ids (R + 256 G + 256^2 B); {fix}"
        )
    ids = rgb[..., 2].astype(np.uint32)
    for channel in (1, 0):
        ids <<= 8
        ids |= rgb[..., channel]
    return ids


def write_segment_ids(path: Path, ids: np.ndarray) -> None:
    """Write segment ids (H, W), 0 to 2^24 - 1, as a panoptic PNG that is complete or absent.

    Raises:
        UserError: the file cannot be written.
    """
    image = Image.fromarray(ids_to_rgb(ids))
    with atomic_write(path) as partial:
        image.save(partial)


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Return segment ids (H, W) as the colors of a panoptic PNG, (H, W, 3) uint8.

    Example:
        >>> ids_to_rgb(np.array([[258]])).tolist()
        [[[2, 1, 0]]]
    """
    return np.stack([ids & 255, (ids >> 8) & 255, ids >> 16], axis=-1).astype(np.uint8)


def segment_problems(
    segments: Iterable[Segment],
    drawn_ids: Iterable[int],
    categories: Container[int],
    names: tuple[str, str] = ("JSON", "PNG"),
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the segments of an image: the kind of the problem, and a text that
    names the segment.

    Args:
        segments: the segments in the JSON.
        drawn_ids: the ids in the PNG.
        categories: the valid category ids.
        names: how to call the JSON and the PNG in the texts.
    """
    listed, drawn = names
    known = set()
    for segment in segments:
        if segment.id in known:
            yield BAD_IDS, f"segment {segment.id} occurs twice in the {listed}"
        known.add(segment.id)
        if not VOID < segment.id <= MAX_ID:
            yield BAD_IDS, f"segment {segment.id} is not an id that a PNG can show, 1 to {MAX_ID}"
        if segment.category_id not in categories:
            yield (
                BAD_CATEGORIES,
                f"segment {segment.id} has the unknown category {segment.category_id}",
            )
    shown = set(drawn_ids) - {VOID}
    for number in sorted(known - shown):
        yield BAD_IDS, f"segment {number} is in the {listed} but not in the {drawn}"
    for number in sorted(shown - known):
        yield BAD_IDS, f"segment {number} is in the {drawn} but not in the {listed}"


def relabel_segments(
    ids: np.ndarray, segments: Iterable[Segment], labels: Mapping[int, int]
) -> np.ndarray:
    """Return the labels (H, W) of segment ids (H, W), uint8.

    Pixels without a segment get 255, and so do ids that ``segments`` does not list, as in
    Detectron2's own script.

    Args:
        ids: the ids of a panoptic PNG.
        segments: the segments of the image.
        labels: the label of each category id.

    Raises:
        KeyError: a category has no label.
    """
    table = {s.id: labels[s.category_id] for s in segments}
    # A PNG cannot contain larger ids; segment_problems reports them.
    table = {VOID: IGNORE, **{number: x for number, x in table.items() if 0 <= number <= MAX_ID}}
    known = np.array(sorted(table), np.uint32)
    values = np.array([table[number] for number in known.tolist()], np.uint8)
    position = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[position] == ids, values[position], np.uint8(IGNORE))
