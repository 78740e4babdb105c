"""Results of checks on disk, so that unchanged data is not read twice."""

import hashlib
import io
import json
import logging
import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ccsa.data.problems import Problems
from ccsa.errors import UserError
from ccsa.utils.files import write_text

logger = logging.getLogger(__name__)

VERSION = 4  # of the checks; results of another version are not taken from the cache
_FILES = ("file_name", "sem_seg_file_name", "pan_seg_file_name")


def records_key(splits: Mapping[str, Sequence[Mapping[str, Any]]], *settings: Any) -> str:
    """Return a hash of everything that a check depends on: its settings, the records, and the size
    and time of every file that they name."""
    digest = hashlib.sha256(repr((VERSION, settings)).encode())
    for name, records in splits.items():
        digest.update(name.encode())
        for record in records:
            buffer = io.BytesIO()
            pickler = pickle.Pickler(buffer, 5)
            pickler.fast = True  # equal records become equal bytes, whatever objects they share
            pickler.dump(record)
            digest.update(buffer.getbuffer())
            for key in _FILES:
                if isinstance(record, Mapping) and isinstance(record.get(key), str):
                    digest.update(_stamp(record[key]).encode())
    return digest.hexdigest()


def files_key(files: Iterable[str | Path], *settings: Any) -> str:
    """Return a hash of the names, sizes and times of files."""
    stamps = [(str(file), _stamp(file)) for file in files]
    return hashlib.sha256(repr((VERSION, settings, stamps)).encode()).hexdigest()


def load(key: str) -> tuple[Problems, dict[str, Any]] | None:
    """Return the problems and the other values that :func:`store` wrote under a key, or None."""
    file = _file(key)
    try:
        content = json.loads(file.read_text())
        stored = [(str(kind), str(name), str(text)) for kind, name, text in content["problems"]]
        more, values = dict(content["more"]), dict(content["values"])
    except (OSError, ValueError, KeyError, TypeError):  # absent, or of another program
        return None
    problems = Problems()
    for kind, name, text in stored:
        problems.add(kind, name, text)
    problems.counts.update(more)
    return problems, values


def store(key: str, problems: Problems, **values: Any) -> None:
    """Store the problems that a check found, and other JSON values."""
    stored = [(p.kind, p.file, p.message) for p in problems]
    counts = dict(problems.counts)
    for kind, _, _ in stored:
        counts[kind] -= 1
    content = {"problems": stored, "more": counts, "values": values}
    try:
        write_text(_file(key), json.dumps(content))
    except UserError as error:  # a cache that cannot be written only costs time
        logger.debug("The result of the check is not cached: %s", error)


def _stamp(file: str | Path) -> str:
    try:
        status = os.stat(file)
    except (OSError, ValueError):  # absent, or not a name of a file
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _file(key: str) -> Path:
    folder = os.getenv("CCSA_CACHE") or os.path.join(
        os.getenv("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "ccsa"
    )
    return Path(folder) / "checks" / f"{key}.json"
