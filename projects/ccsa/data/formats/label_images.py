"""Reading and writing the files of segmentation datasets: label images, lists of ids, colours."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from ccsa.errors import UserError
from ccsa.utils.files import PARTIAL, atomic_write, write_text

IGNORE = 255  # the label of pixels that count neither in the loss nor in the score
PNG_END = b"IEND\xaeB`\x82"  # the last chunk of every PNG file
STALE_AFTER = 3600.0  # seconds after which such a file belongs to nobody any more

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_indices(path: Path) -> np.ndarray:
    """A label image as its (H, W) integers. A palette image gives its indices, not its colours.

    Raises:
        UserError: the file cannot be read or has several channels.
    """
    try:
        with Image.open(path) as image:
            values = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); put a good copy in its place") from error
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise UserError(
            f"{path} is no label image of one channel of integers (shape {values.shape}, type "
            f"{values.dtype}); put a good copy in its place"
        )
    return values


def misreading(image: Image.Image) -> str | None:
    """What Detectron2's mapper, which converts labels to grey, would get wrong; None if nothing.

    A palette other than the grey ramp turns indices into the brightness of their colours.
    """
    if image.mode == "L":
        return None
    if image.mode != "P":
        return f"mode {image.mode} instead of 8-bit indices"
    palette = np.array(image.getpalette()).reshape(-1, 3)
    used = int(np.array(image).max()) + 1
    coloured = np.flatnonzero(palette.any(axis=1))
    count = max(used, coloured[-1] + 1 if len(coloured) else 0)
    if np.array_equal(palette[:count], np.repeat(np.arange(count)[:, None], 3, axis=1)):
        return None
    return "a colour palette, which would be read as brightness"


def find(folder: Path, pattern: str) -> list[Path]:
    """Files of ``folder`` that match, sorted, without hidden ones, as some unpackers leave."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def read_ids(path: Path) -> list[str]:
    """The ids in a list file: one a line, bare or as a path, of which folders and extension go;
    further words of a line are skipped.

    Raises:
        UserError: the list is not there or holds nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path} ({error})") from error
    ids = [PurePosixPath(line.split()[0]).stem for line in lines if line.strip()]
    if not ids:
        raise UserError(f"the list {path} is empty; put a good copy in its place")
    return ids


def is_complete_png(path: Path) -> bool:
    """Whether ``path`` is there and its last chunk is that of a whole PNG file."""
    try:
        with path.open("rb") as file:
            file.seek(-len(PNG_END), os.SEEK_END)
            return file.read() == PNG_END
    except OSError:
        return False


def write_label(path: Path, labels: np.ndarray) -> None:
    """Write (H, W) uint8 labels as an 8-bit grey PNG."""
    image = Image.fromarray(labels)
    with atomic_write(path) as partial:
        image.save(partial)


def write_ids(path: Path, ids: Iterable[str]) -> None:
    """Write a list file, one id a line."""
    write_text(path, "".join(f"{name}\n" for name in ids))


def remove_stale_parts(folder: Path) -> None:
    """Remove what killed runs left half-written in ``folder``; what a run at work writes stays."""
    for part in folder.glob(f".*{PARTIAL}.*"):
        if time.time() - part.stat().st_mtime > STALE_AFTER:
            part.unlink(missing_ok=True)


def in_threads(
    function: Callable[[Item], Result], items: list[Item], description: str
) -> Iterator[Result]:
    """``function`` of each item, in order, in threads, under a progress bar. Ending early, by an
    error or by the caller, drops what has not begun."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in tqdm(futures, desc=description, unit="file", leave=False):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def voc_colors(count: int) -> list[list[int]]:
    """The first ``count`` colours (RGB) of the PASCAL VOC colour map: bit j of a channel, from the
    top, is bit 3 j + channel of the index."""
    bits = np.arange(count)[:, None] >> np.arange(3)
    colors = sum(((bits >> 3 * j) & 1) << (7 - j) for j in range(8))
    return colors.tolist()
