"""The names of the classes that a model was trained on, which its checkpoints store.

The layers of two models with equally many classes have the same shapes, so only the names show that
weights belong to other classes.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ccsa.checkpoint.weight_files import read_entry

ENTRY = "classes"  # of a checkpoint, beside "model"


class Classes(NamedTuple):
    """Names of classes.

    Attributes:
        things: classes of objects.
        stuff: classes of pixels.
    """

    things: list[str]
    stuff: list[str]


def classes_entry(classes: Classes) -> dict[str, Any]:
    """Return what a checkpoint stores of the classes; nothing if there are none.

    Example:
        >>> classes_entry(Classes(["cell"], []))
        {'classes': {'things': ['cell'], 'stuff': []}}
    """
    stored = {field: list(names) for field, names in classes._asdict().items()}
    return {ENTRY: stored} if any(classes) else {}


def read_classes(path: str | Path) -> Classes:
    """Return the classes that a weight file stores; empty lists if it stores none, or cannot be
    read."""
    try:
        stamp = os.stat(path)
    except (OSError, ValueError):  # absent, or not a name of a file
        return Classes([], [])
    things, stuff = _read_classes(str(path), stamp.st_mtime_ns, stamp.st_size)
    return Classes(list(things), list(stuff))


@lru_cache(maxsize=8)
def _read_classes(path: str, modified: int, size: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    entry = read_entry(path, ENTRY)
    return _names(entry, "things"), _names(entry, "stuff")


def _names(entry: Any, field: str) -> tuple[str, ...]:
    names = entry.get(field) if isinstance(entry, Mapping) else None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)
