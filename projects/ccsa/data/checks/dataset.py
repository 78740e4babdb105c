"""Checking a dataset before training: one machinery for a user's folder and registered datasets."""

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ccsa.data.checks import cache as cached
from ccsa.data.checks.annotations import check_annotations, check_splits
from ccsa.data.checks.intensity import IntensityCheck
from ccsa.data.checks.labels import LabelCheck
from ccsa.data.checks.pairs import check_pairs
from ccsa.data.checks.pixels import (
    check_channels,
    check_header,
    check_image,
    check_segments,
)
from ccsa.data.checks.records import check_fields
from ccsa.data.problems import ERROR, KINDS, Problem, Problems
from ccsa.data.records import Header
from ccsa.utils.tables import wrapped_table

WORKERS = 4
_BLOCK = 32  # files between two looks at the clock

Record = Mapping[str, Any]
Item = tuple[str, Record]  # name of the split, record


@dataclass
class Checked:
    """What a check found.

    Attributes:
        problems: everything that is wrong.
        images: number of images.
        decoded: number of images whose pixels were read; fewer if the time was limited.
    """

    problems: Problems = field(default_factory=Problems)
    images: int = 0
    decoded: int = 0

    def table(self) -> str:
        """Return the table of problems: kind, severity, count, first three files, fix.

        Of a problem that is not about one file, the message is shown instead of the file.
        """
        rows = []
        for kind in self.problems.kinds():
            files = [_shown(problem) for problem in self.problems.first(kind)]
            entry = KINDS[kind]
            rows.append(
                (kind, entry.severity, self.problems.counts[kind], "\n".join(files), entry.fix)
            )
        headers = ("kind", "severity", "count", "first files", "how to fix it")
        widths = [None, None, None, 40, 60]
        return wrapped_table(rows, widths, headers=headers, style="grid")

    def summary(self) -> str:
        """Return one line with the number of images, of errors and of warnings."""
        errors, warnings = severity_counts(self.problems)
        text = f"{self.images:,} images checked"
        if self.decoded < self.images:
            text += f" (a sample of {self.decoded:,} was decoded)"
        found = [f"{n:,} {name}{'' if n == 1 else 's'}" for n, name in _pairs(errors, warnings)]
        return f"{text}: {' and '.join(found) or 'no problems found'}"


def _shown(problem: Problem) -> str:
    path = Path(problem.file)
    one_file = path.suffix and not path.is_dir()
    return "/".join(path.parts[-2:]) if one_file else problem.message


def _pairs(errors: int, warnings: int) -> list[tuple[int, str]]:
    return [(n, name) for n, name in ((errors, "error"), (warnings, "warning")) if n]


def check_records(
    splits: Mapping[str, Sequence[Record]],
    *,
    things: Sequence[str] = (),
    stuff: Sequence[str] = (),
    ignore: int = 255,
    source: str | Path = "",
    masks: bool = True,
    validated: bool = False,
    intensity_range: Sequence[float] | None = None,
    seconds: float | None = None,
    cache: bool = True,
) -> Checked:
    """Check the records of a dataset.

    Args:
        splits: Detectron2's standard dicts by the name of the split; ``train`` is what is trained
            on.
        things: names of the classes of objects.
        stuff: names of the classes of pixels.
        ignore: the label value that is ignored.
        source: what messages about a whole split name.
        masks: whether the model needs masks.
        validated: whether a reader of this project made the records, which has checked every mask.
        intensity_range: (low, high) that maps images of more than 8 bits; None if not known.
        seconds: limit for the whole check. All annotations are checked in any case; of the
            files, as many as the remaining time allows (at least a sixth of it), in a random order
            that is the same every time.
        cache: take the result for unchanged files from an earlier check.

    Example:
        >>> record = {"file_name": "no/such.jpg", "image_id": 1, "height": 8, "width": 8}
        >>> checked = check_records({"train": [{**record, "annotations": []}]}, cache=False)
        >>> checked.problems.kinds()
        ['missing_image', 'empty_split']
    """
    key, start = "", time.monotonic()
    if cache:
        known = tuple(intensity_range) if intensity_range else None
        settings = (things, stuff, ignore, str(source), masks, validated, known)
        key = cached.records_key(splits, *settings)
        if stored := cached.load(key):
            return Checked(stored[0], **stored[1])
    checked = Checked(images=sum(len(records) for records in splits.values()))
    problems = checked.problems
    usable = {
        name: check_fields(name, records, problems, classes=len(things), validated=validated)
        for name, records in splits.items()
    }
    for name, records in usable.items():
        check_annotations(name, records, problems)
        check_pairs(records, problems)
    check_splits(usable, things, source, problems, masks=masks)
    items = [(name, record) for name, records in usable.items() for record in records]
    labels, intensities = LabelCheck(len(stuff), ignore), IntensityCheck(intensity_range)
    if seconds is not None:
        seconds = max(seconds / 6, seconds - (time.monotonic() - start))
    checked.decoded = _check_files(items, labels, intensities, problems, seconds)
    labels.finish(source, stuff, checked.decoded == len(items), problems)
    intensities.finish(source, problems)
    checked.decoded += checked.images - len(items)  # nothing of these could be read
    if cache and checked.decoded == checked.images:
        cached.store(key, problems, images=checked.images, decoded=checked.decoded)
    return checked


def _check_files(
    items: Sequence[Item],
    labels: LabelCheck,
    intensities: IntensityCheck,
    problems: Problems,
    seconds: float | None,
) -> int:
    """Open files, in threads: first the headers of all images, for at most half of the time, then
    their pixels and labels. Return how many images were decoded."""
    end = None if seconds is None else time.monotonic() + seconds
    half = None if seconds is None or end is None else end - seconds / 2
    order = list(items)
    if seconds is not None:
        random.Random(0).shuffle(order)
    opened: list[tuple[str, Record, Header | None]] = []
    for (split, record), (found, header) in _in_threads(_header_of, order, half):
        problems.extend(found)
        opened.append((split, record, header))
    train = [(str(r["file_name"]), h) for split, r, h in opened if split == "train" and h]
    check_channels(train, problems)

    def decode(item: tuple[str, Record, Header | None]) -> tuple[Problems, bytes]:
        found, (split, record, header) = Problems(), item
        file, see = str(record["file_name"]), partial(intensities, split)
        digest = check_image(file, header, found, see) if header else b""
        if labels.classes and "sem_seg_file_name" in record:
            labels(split, record, header, found)
        if "pan_seg_file_name" in record and "labels" not in record:
            check_segments(record, header, found)
        return found, digest

    digests: dict[bytes, tuple[str, str]] = {}
    decoded = 0
    for (split, record, _), (found, digest) in _in_threads(decode, opened, end):
        problems.extend(found)
        decoded += 1
        file = str(record["file_name"])
        other = digests.setdefault(digest, (split, file)) if digest else (split, file)
        if other[0] != split and "train" in (split, other[0]):
            text = f"the image is also in {other[0]}: {other[1]}"
            problems.add("image_in_two_splits", file, text)
    return decoded


def _header_of(item: Item) -> tuple[Problems, Header | None]:
    found = Problems()
    return found, check_header(item[1], found)


def _in_threads(
    function: Callable[[Any], Any], items: Sequence[Any], end: float | None
) -> Iterator[tuple[Any, Any]]:
    """Yield items with the function's results, until ``end`` on the monotonic clock."""
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        for i in range(0, len(items), _BLOCK):
            if end is not None and time.monotonic() > end:
                return
            block = items[i : i + _BLOCK]
            yield from zip(block, pool.map(function, block), strict=True)


def severity_counts(problems: Problems) -> tuple[int, int]:
    """Return the numbers of errors and of warnings."""
    errors = sum(n for kind, n in problems.counts.items() if KINDS[kind].severity == ERROR)
    return errors, len(problems) - errors
