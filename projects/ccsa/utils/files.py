"""Files that are complete or absent, whatever happens while they are written."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ccsa.errors import UserError

PARTIAL = ".partial"  # in the name of a file that is being written, before its ending


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A name to write under, moved to ``path`` at the end, or removed after an error.

    Raises:
        UserError: the file cannot be written.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}{PARTIAL}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); "
            "make room there, or name another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_new_file(path: Path, option: str) -> None:
    """Refuse, before anything is computed, a file that is there and a place that takes none.

    Raises:
        UserError: either of these.
    """
    if path.exists():
        raise UserError(
            f"{option} {path} would be overwritten; name another file, or delete it first"
        )
    parent = next(place for place in path.absolute().parents if place.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"{option} {path} cannot be written in {parent}; name another file")
