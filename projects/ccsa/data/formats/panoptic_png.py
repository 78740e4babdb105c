"""Panoptic PNGs: segment ids as colours, what the ids must be, and labels made of them.

The id of a pixel's segment is R + 256 G + 256^2 B, and 0 is void. One reader serves the evaluators,
the drawings and the tools; panopticapi, which defines the format, is not on PyPI and not used.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ccsa.data.formats.label_images import IGNORE
from ccsa.errors import UserError
from ccsa.utils.files import atomic_write

VOID = 0  # the id of pixels that belong to no segment
MOST = 256**3 - 1  # the largest id that three bytes hold
BAD_IDS, BAD_CATEGORIES = "bad ids", "bad categories"  # kinds of trouble with segments


class Segment(NamedTuple):
    """A segment as the JSON has it."""

    id: int
    category_id: int
    iscrowd: bool = False
    area: float | None = None  # pixels; of ground truth alone


def read_segment_ids(path: Path) -> np.ndarray:
    """The segment ids of a panoptic PNG, (H, W) uint32.

    Raises:
        UserError: it cannot be read, or its pixels are not three colours of 8 bits.
    """
    cure = "put a good copy in its place"
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode in ("RGB", "RGBA"):  # panopticapi takes both and leaves the opacity alone
                rgb = np.asarray(image)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; {cure}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read {path} ({error}); {cure}") from error
    if mode not in ("RGB", "RGBA"):
        raise UserError(
            f"{path} is no panoptic PNG: it has mode {mode} instead of RGB, whose colours are "
            f"segment ids (R + 256 G + 256^2 B); {cure}"
        )
    ids = rgb[..., 2].astype(np.uint32)
    for channel in (1, 0):
        ids <<= 8
        ids |= rgb[..., channel]
    return ids


def write_segment_ids(path: Path, ids: np.ndarray) -> None:
    """Write (H, W) ids, 0 to 2^24 - 1, as a panoptic PNG that is complete or absent."""
    rgb = np.stack([ids & 255, (ids >> 8) & 255, ids >> 16], axis=-1).astype(np.uint8)
    image = Image.fromarray(rgb)
    with atomic_write(path) as partial:
        image.save(partial)


def segment_troubles(
    segments: Iterable[Segment],
    there: Iterable[int],
    categories: Container[int],
    names: tuple[str, str] = ("JSON", "PNG"),
) -> Iterator[tuple[str, str]]:
    """What is wrong with the segments of an image: its kind, and a text that names the segment.

    Args:
        segments: of the JSON.
        there: ids in the PNG.
        categories: ids of those known.
        names: what to call the two.
    """
    listed, drawn = names
    known = set()
    for segment in segments:
        if segment.id in known:
            yield BAD_IDS, f"segment {segment.id} is twice in the {listed}"
        known.add(segment.id)
        if not VOID < segment.id <= MOST:
            yield BAD_IDS, f"segment {segment.id} is no id that a PNG can show, 1 to {MOST}"
        if segment.category_id not in categories:
            yield (
                BAD_CATEGORIES,
                f"segment {segment.id} has the unknown category {segment.category_id}",
            )
    shown = set(there) - {VOID}
    for number in sorted(known - shown):
        yield BAD_IDS, f"segment {number} is in the {listed} and not in the {drawn}"
    for number in sorted(shown - known):
        yield BAD_IDS, f"segment {number} is in the {drawn} and not in the {listed}"


def relabel_segments(
    ids: np.ndarray, segments: Iterable[Segment], labels: Mapping[int, int]
) -> np.ndarray:
    """(H, W) uint8 labels of a map (H, W) of segment ids, by {category id: label}; 255 where no
    segment is. Ids that the segments do not have are no segment, as for Detectron2's own script.

    Raises:
        KeyError: a category that has no label.
    """
    table = {s.id: labels[s.category_id] for s in segments}
    # An id beyond what a PNG holds is in no map; telling so is left to who checks the segments.
    table = {VOID: IGNORE, **{number: x for number, x in table.items() if 0 <= number <= MOST}}
    known = np.array(sorted(table), np.uint32)
    values = np.array([table[number] for number in known.tolist()], np.uint8)
    position = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[position] == ids, values[position], np.uint8(IGNORE))
