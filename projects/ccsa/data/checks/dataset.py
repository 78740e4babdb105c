"""Checking a dataset before training: one machinery for a user's folder and registered datasets."""

import hashlib
import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ccsa.data.checks.annotations import check_annotations, check_splits
from ccsa.data.checks.pixels import LabelCheck, check_channels, check_header, check_image
from ccsa.data.problems import ERROR, KINDS, Problems
from ccsa.utils.files import write_text

logger = logging.getLogger(__name__)

VERSION = 1  # of the checks; results of another version are not taken from the cache
WORKERS = 4
_BLOCK = 32  # files between two looks at the clock


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
        """Return the table of problems: kind, severity, count, first three files, fix."""
        rows = []
        for kind in self.problems.kinds():
            shown = [p for p in self.problems if p.kind == kind]
            files = list(dict.fromkeys(Path(p.file).name for p in shown))[:3]
            entry = KINDS[kind]
            rows.append(
                (kind, entry.severity, self.problems.counts[kind], "\n".join(files), entry.fix)
            )
        headers = ("kind", "severity", "count", "first files", "how to fix it")
        widths = [None, None, None, 40, 60]
        return tabulate(rows, headers, tablefmt="grid", maxcolwidths=widths)


def check_records(
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    things: Sequence[str] = (),
    stuff: Sequence[str] = (),
    ignore: int = 255,
    source: str | Path = "",
    masks: bool = True,
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
        seconds: limit for reading files. All annotations are checked in any case; of the files, as
            many as the time allows, in a random order that is the same every time.
        cache: take the result for unchanged files from an earlier check.
    """
    checked = Checked(images=sum(len(records) for records in splits.values()))
    key = _key(splits, things, stuff, ignore, masks) if cache else ""
    stored = _load(key) if cache else None
    if stored is not None:
        return stored
    problems = checked.problems
    for name, records in splits.items():
        check_annotations(name, records, problems)
    check_splits(splits, things, source, problems, masks=masks)
    checked.decoded = _check_files(splits, len(stuff), ignore, source, problems, seconds)
    if cache and checked.decoded == checked.images:
        _store(key, checked)
    return checked


def _check_files(
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    classes: int,
    ignore: int,
    source: str | Path,
    problems: Problems,
    seconds: float | None,
) -> int:
    """Open files, in threads; return how many images were decoded."""
    start = time.monotonic()
    items = [(name, record) for name, records in splits.items() for record in records]
    if seconds is not None:
        random.Random(0).shuffle(items)
    labels = LabelCheck(classes, ignore)

    def look(item: tuple[str, Mapping[str, Any]]) -> tuple[Problems, Any, bytes]:
        found, (_, record) = Problems(), item
        header = check_header(record, found)
        digest = b""
        if header is not None:
            check_image(str(record["file_name"]), found)
            digest = hashlib.sha256(Path(record["file_name"]).read_bytes()).digest()
        if classes and "sem_seg_file_name" in record:
            labels(record, header, found)
        return found, header, digest

    digests: dict[bytes, tuple[str, str]] = {}
    headers = []
    decoded = 0
    for (name, record), (found, header, digest) in _in_blocks(look, items, start, seconds):
        problems.extend(found)
        decoded += 1
        file = str(record["file_name"])
        if header is not None and name == "train":
            headers.append((file, header))
        if digest:
            other = digests.setdefault(digest, (name, file))
            if other[0] != name and "train" in (name, other[0]):
                text = f"the image is also in {other[0]}: {other[1]}"
                problems.add("image_in_two_splits", file, text)
    check_channels(headers, problems)
    labels.finish(source, problems)
    return decoded


def _in_blocks(
    function: Callable[[Any], Any], items: list, start: float, seconds: float | None
) -> Iterator[tuple[Any, Any]]:
    """Yield items with the function's results, until the time is over."""
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        for i in range(0, len(items), _BLOCK):
            if seconds is not None and time.monotonic() - start > seconds:
                return
            block = items[i : i + _BLOCK]
            yield from zip(block, pool.map(function, block), strict=True)


def _key(splits: Mapping[str, Sequence[Mapping]], *settings: Any) -> str:
    """Return a hash of everything that a check depends on: annotations, and stamps of files."""
    digest = hashlib.sha256(repr((VERSION, settings)).encode())
    for name, records in splits.items():
        digest.update(name.encode())
        for record in records:
            digest.update(json.dumps(record, sort_keys=True, default=str).encode())
            for key in ("file_name", "sem_seg_file_name", "pan_seg_file_name"):
                if key in record:
                    digest.update(_stamp(record[key]).encode())
    return digest.hexdigest()


def _stamp(file: str) -> str:
    try:
        status = os.stat(file)
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _cache_file(key: str) -> Path:
    folder = os.getenv("CCSA_CACHE") or os.path.join(
        os.getenv("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "ccsa"
    )
    return Path(folder) / "checks" / f"{key}.json"


def _load(key: str) -> Checked | None:
    try:
        content = json.loads(_cache_file(key).read_text())
        problems = Problems()
        for kind, file, message in content["problems"]:
            problems.add(kind, file, message)
        problems.counts.update(content["more"])
        return Checked(problems, content["images"], content["decoded"])
    except (OSError, ValueError, KeyError, TypeError):  # absent, or of another program
        return None


def _store(key: str, checked: Checked) -> None:
    stored = [(p.kind, p.file, p.message) for p in checked.problems]
    counts = dict(checked.problems.counts)
    for kind, _, _ in stored:
        counts[kind] -= 1
    content = {
        "problems": stored,
        "more": counts,
        "images": checked.images,
        "decoded": checked.decoded,
    }
    try:
        write_text(_cache_file(key), json.dumps(content))
    except ValueError as error:  # a cache that cannot be written only costs time
        logger.debug("The result of the check is not cached: %s", error)


def severity_counts(problems: Problems) -> tuple[int, int]:
    """Return the numbers of errors and of warnings."""
    errors = sum(n for kind, n in problems.counts.items() if KINDS[kind].severity == ERROR)
    return errors, len(problems) - errors
